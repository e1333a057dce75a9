// DeviceLane: how one hop's pages get from one device to the other, and the thread that drives it. Jobs are asked for and
// answered on the event loop's thread and done on the lane's, so nothing here blocks the loop, whatever a library or driver does.
//   ways     NcclLane sends and receives; IpcLane's receiver takes pages from the sender's memory (is_pulled()).
//   order    pages among each other, in the order in which they were asked for; checksums by themselves, so that none waits for a
//            peer.
//   answers  wakes() becomes readable, complete() calls each job's Done; a page is touched no more when its Done is called.
//   failure  of the way or the device: the lane ends, and says why (Start::on_failure). abort() ends it too. Every job has its
//            Done called by complete() then; those under way when the device has let go of their pages. Nothing is used again.
//   limits   the caller's: a job is a page under way.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "base/device_stream.h"
#include "transport/kv/message_streams.h"

namespace runahead {

// What the sending end tells the receiving one before its first page.
using LaneIntroduction = std::array<std::byte, 128>;

class DeviceLane {
 public:
  using Done = MessageEndpoint::Done;

  explicit DeviceLane(MakeDeviceStream make_stream);
  virtual ~DeviceLane();  // of one that has stopped
  DeviceLane(const DeviceLane&) = delete;
  DeviceLane& operator=(const DeviceLane&) = delete;

  struct Start {
    std::function<void(const LaneIntroduction&)> on_introduction;  // of the sending end; empty at the receiving one
    std::function<void(const Error&)> on_failure;  // why it ends by itself, before its jobs are told
    size_t discard_bytes = 0;  // the largest page that is received for nobody
  };
  // Once. What it calls, it calls from complete().
  void start(Start start);
  void checksum(std::span<const std::byte> page, Done done);
  void send(std::span<const std::byte> page, Done done);  // of a lane that is not pulled
  // With its CRC32C. at: of a pulled lane, the page's place at the sender.
  void receive(std::span<std::byte> page, uint64_t at, Done done);
  void discard(size_t bytes, Done done);  // of a lane that is not pulled: receives for nobody
  void abort();
  // abort(), and waits until no page is touched any more: at once if has_ended().
  void stop();

  // The receiver takes pages from where they are, and says so: nothing is sent.
  virtual bool is_pulled() const { return false; }
  // Where the receiver of a pulled lane finds the page.
  virtual uint64_t place_of(std::span<const std::byte>) const { return 0; }

  int wakes() const { return event_; }  // a descriptor
  void complete();
  bool is_ready() const { return ready_; }  // both ends stand
  bool has_ended() const { return ended_; }  // and all has been completed

 protected:
  enum class Kind { kChecksum, kSend, kReceive, kDiscard };
  struct Job {
    Kind kind;
    std::byte* page;  // null to discard
    size_t bytes;
    uint64_t at;
    Done done;
  };
  using Outcome = Result<void>;

  // On the lane's thread:
  virtual Outcome connect() = 0;  // returns when both ends stand
  virtual Outcome move(const Job& job, std::byte* page, DeviceStream& stream) = 0;  // asks the stream for it
  virtual Outcome check() { return {}; }  // an error if the way has failed
  virtual void disconnect() {}  // what the device has in hand ends by it
  virtual void leave() {}  // the device has nothing in hand any more
  void introduce(const LaneIntroduction& introduction);
  bool is_aborting() const { return aborting_; }
  bool sends() const { return static_cast<bool>(on_introduction_); }

 private:
  struct UnderWay {
    Job job;
    DeviceStream::Ticket ticket;
  };

  void ask(Job job);
  void run();
  Outcome work();
  Outcome begin(Job job);
  Outcome take_jobs();
  static size_t count_done(DeviceStream& stream, const std::deque<UnderWay>& jobs);
  void finish_jobs(DeviceStream& stream, std::deque<UnderWay>& jobs, size_t count);
  void answer(std::function<void()> call);
  void let_go();

  MakeDeviceStream make_stream_;
  std::function<void(const LaneIntroduction&)> on_introduction_;
  std::function<void(const Error&)> on_failure_;
  size_t discard_bytes_ = 0;
  int event_;

  std::unique_ptr<DeviceStream> pages_stream_, checksums_stream_;  // the lane's thread's, like what follows
  std::deque<UnderWay> pages_, checksums_;
  std::span<std::byte> nobodys_;  // where pages go that nobody wants

  std::mutex mutex_;  // of what follows
  std::condition_variable changed_;
  std::deque<Job> asked_pages_, asked_checksums_;
  std::vector<std::function<void()>> answers_;
  bool over_ = false;  // the thread does no more
  std::optional<Error> why_;

  std::atomic<bool> aborting_ = false;
  bool ready_ = false;  // the event loop's, like what follows
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace runahead
