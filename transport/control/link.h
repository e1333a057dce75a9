// Link: one TCP connection of the control plane: TLS where the process has an identity, the preamble, then frames both ways.
// Reads into a ControlInbox, which all links of a process share and the actor takes events from; writes from a bounded queue by
// one writer.
//   owner    owns its socket. The plane holds the link until kDisconnected; the link's own coroutines keep it alive.
//   threads  the process's io_context thread.
//   limits   kLinkQueueFramesMax and kLinkQueueBytesMax waiting to be written: then the peer is dropped as stuck.
//            A full inbox makes the links wait, and so their peers.
#pragma once

#include <deque>
#include <memory>
#include <string>

#include "base/async/stall_timer.h"
#include "base/limits.h"
#include "transport/control/control_plane.h"
#include "transport/tls/peer_socket.h"

namespace runahead {

class ControlInbox {
 public:
  ControlInbox(asio::any_io_executor executor, Clock& clock)
      : clock_(clock), came_(executor, clock), taken_(executor, clock) {}

  bool full() const;
  asio::awaitable<void> wait_for_room();  // may return early
  void wake_links() { taken_.notify(); }  // those that wait for room look at their own state again
  void push(ControlEvent event);  // messages: not while full
  Task<ControlEvent> receive(Deadline deadline);

 private:
  Clock& clock_;
  std::deque<ControlEvent> events_;
  size_t payload_bytes_ = 0;
  Wake came_, taken_;
};

class Link : public std::enable_shared_from_this<Link> {
 public:
  // shared_ptr: the plane's table and the two coroutines hold it; whoever is last frees the socket.
  static std::shared_ptr<Link> create(PeerId peer, Tcp::socket socket, Clock& clock,
                                      std::shared_ptr<ControlInbox> inbox);

  PeerId peer() const { return peer_; }
  // As the end that has called or been called: shows the identity, if there is one, and checks the peer's, exchanges preambles,
  // pushes kConnected and begins to move frames; the caller ends up with an open or a closed link.
  static Task<void> open(std::shared_ptr<Link> self, std::shared_ptr<TlsIdentity> identity, PeerSocket::End end,
                         Deadline deadline);
  void send(std::string payload);
  // Frames of any allowed size may come from now on. Until then it is unregistered, whose frames are short.
  void admit() { frame_bytes_max_ = limits::kControlFrameBytesMax; }
  // Delivers nothing more, writes what is queued for at most kFlushTimeout, closes.
  void disconnect();
  // At once.
  void close(std::string why);
  bool closed() const { return closed_; }
  // Returns when both coroutines have ended.
  asio::awaitable<void> join();

 private:
  Link(PeerId peer, Tcp::socket socket, Clock& clock, std::shared_ptr<ControlInbox> inbox);
  Task<void> greet(std::shared_ptr<TlsIdentity> identity, PeerSocket::End end);
  static asio::awaitable<void> read_frames(std::shared_ptr<Link> self);
  static asio::awaitable<void> write_frames(std::shared_ptr<Link> self);
  asio::awaitable<bool> deliver(std::vector<std::string> frames);

  PeerId peer_;
  PeerSocket socket_;
  Clock& clock_;
  std::shared_ptr<ControlInbox> inbox_;
  std::deque<std::string> queue_;  // encoded frames
  size_t queue_bytes_ = 0;
  uint32_t frame_bytes_max_ = limits::kUnregisteredFrameBytesMax;
  bool connected_ = false;  // kConnected has been pushed
  bool leaving_ = false;  // disconnect() was called
  bool closed_ = false;
  int coroutines_ = 0;
  Wake changed_;  // the queue, leaving_ or closed_
  StallTimer timeout_;  // of the preamble, later of the last flush
};

}  // namespace runahead
