// NcclLane: a communicator of two, and the thread that drives it, for the pages of one hop: one end sends, the other receives,
// in the same order. Jobs are asked for and answered on the event loop's thread and done on the lane's, so nothing here blocks
// the loop, whatever NCCL does.
//   order    sends among each other, receives among each other; checksums by themselves, so that none waits for a peer.
//   answers  wakes() becomes readable, complete() calls each job's Done; a page is touched no more when its Done is called.
//   failure  of NCCL or the device: the lane ends, and failure() says why. abort() ends it too. Every job has its Done called by
//            complete() then; those under way when the device has let go of their pages. Nothing is used again after that.
//   limits   the caller's: a job is a page under way.
#pragma once

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
#include "transport/kv/nccl_api.h"

namespace runahead {

class NcclLane {
 public:
  using Done = MessageEndpoint::Done;

  // The sending end: on_id gets, from complete(), what the other end needs to join.
  NcclLane(const NcclApi& api, MakeDeviceStream make_stream, std::function<void(const NcclUniqueId&)> on_id);
  // The receiving end.
  NcclLane(const NcclApi& api, MakeDeviceStream make_stream, const NcclUniqueId& id);
  ~NcclLane();  // stop()

  void checksum(std::span<const std::byte> page, Done done);
  void send(std::span<const std::byte> page, Done done);
  void receive(std::span<std::byte> page, Done done);  // with its CRC32C
  void discard(size_t bytes, Done done);  // receives for nobody
  void abort();
  // abort(), and waits until no page is touched any more: at once if has_ended().
  void stop();

  int wakes() const { return event_; }  // a descriptor
  void complete();
  bool is_ready() const { return ready_; }  // the communicator stands
  bool has_ended() const { return ended_; }  // and all has been completed
  const std::string& failure() const { return failure_; }  // why it ends by itself; else empty

 private:
  enum class Kind { kChecksum, kSend, kReceive, kDiscard };
  struct Job {
    Kind kind;
    std::byte* page;  // null to discard
    size_t bytes;
    Done done;
  };
  struct UnderWay {
    Job job;
    DeviceStream::Ticket ticket;
  };
  using Result = runahead::Result<void>;

  NcclLane(const NcclApi& api, MakeDeviceStream make_stream);
  void ask(Job job);
  // On the lane's thread:
  void run();
  Result work();
  Result connect();
  Result await(int state);  // of the last call
  Result start(Job job);
  Result take_jobs();
  static size_t count_done(DeviceStream& stream, const std::deque<UnderWay>& jobs);
  void finish_jobs(DeviceStream& stream, std::deque<UnderWay>& jobs, size_t count);
  void answer(std::function<void()> call);
  void let_go();
  std::unexpected<Error> nccl_error(const char* what, int state) const;

  const NcclApi& api_;
  MakeDeviceStream make_stream_;
  std::function<void(const NcclUniqueId&)> on_id_;  // of the sending end
  NcclUniqueId id_{};
  int event_;

  NcclComm comm_ = nullptr;  // from here on the lane's thread's
  std::unique_ptr<DeviceStream> pages_stream_, checksums_stream_;
  std::deque<UnderWay> pages_, checksums_;

  std::mutex mutex_;  // of what follows
  std::condition_variable changed_;
  std::deque<Job> asked_;
  std::vector<std::function<void()>> answers_;
  bool over_ = false;  // the thread does no more
  std::string why_;

  std::atomic<bool> aborting_ = false;
  bool ready_ = false;  // the event loop's, like what follows
  bool ended_ = false;
  std::string failure_;
  std::thread thread_;
};

}  // namespace runahead
