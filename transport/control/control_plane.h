// ControlPlane: small messages between the coordinator and its workers (a star: workers do not talk to each other on
// this plane). Production: framed TCP over Asio (transport/control/tcp_control); simulation: a faulty virtual network
// (tests/sim). Payloads are serialised Envelopes (proto/control.proto); the plane does not look inside.
//   threads  the process's io_context thread.
//   events   a peer's kConnected comes first, then its messages in the order sent, then exactly one kDisconnected: also
//            after our own disconnect(), which delivers no more of its messages.
//   limits   kControlFrameBytesMax a message, kLinkQueueFramesMax waiting a peer: a peer that does not read is dropped.
#pragma once

#include <cstdint>
#include <string>

#include "base/clock.h"
#include "base/task.h"

namespace runahead {

// One connection; never reused, so a reconnecting peer is a new PeerId. A worker's only peer is its coordinator.
using PeerId = uint64_t;

struct ControlEvent {
  enum class Kind { kConnected, kMessage, kDisconnected };
  Kind kind = Kind::kMessage;
  PeerId peer = 0;
  std::string
      payload;  // kConnected: the role in the peer's certificate, if it has shown one; kMessage: bytes of one Envelope;
  // kDisconnected: why
};

class ControlPlane {
 public:
  virtual ~ControlPlane() = default;
  // The next event; kDeadlineExceeded if none comes in time. One caller at a time.
  virtual Task<ControlEvent> receive(Deadline deadline) = 0;
  // Never blocks and never fails: a peer that is gone or stuck shows up as kDisconnected.
  virtual void send(PeerId peer, std::string payload) = 0;
  virtual void disconnect(PeerId peer) = 0;
  // The peer is a member from now on. Until then it is unregistered: it shares a few places with others of its kind, the
  // oldest goes when they are full, and its messages are short (a server with unregistered peers overrides this).
  virtual void admit(PeerId) {}
};

}  // namespace runahead
