// DeviceLane: a HopLane from one device to another, and the thread that drives it. Jobs are asked for and answered on the event
// loop's thread and done on the lane's, so nothing here blocks the loop, whatever a library or driver does.
//   ways     NcclLane sends and receives; IpcLane's receiver takes pages from the sender's memory (is_pulled()).
//   order    pages among each other, in the order in which they were asked for; checksums by themselves, so that none waits for a
//            peer.
//   answers  complete() calls each job's Done.
//   failure  of the way or the device: the lane ends, and says why (Start::on_failure). abort() ends it too. Every job has its
//            Done called by complete() then; those under way when the device has let go of their pages. Nothing is used again.
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
#include "transport/kv/hop_lane.h"

namespace runahead {

class DeviceLane : public HopLane {
 public:
  explicit DeviceLane(MakeDeviceStream make_stream);
  ~DeviceLane() override;
  DeviceLane(const DeviceLane&) = delete;
  DeviceLane& operator=(const DeviceLane&) = delete;

  void start(Start start) override;
  asio::awaitable<void> serve() override;
  void checksum(std::span<const std::byte> page, Done done) override;
  void send(std::span<const std::byte> page, Done done) override;
  void receive(std::span<std::byte> page, uint64_t at, Done done) override;  // with its CRC32C
  void discard(size_t bytes, Done done) override;
  void abort() override;
  void stop() override;
  bool is_ready() const override { return ready_; }

  void complete();  // what serve() does when there is something
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
  bool sends() const { return start_.sends; }

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
  Start start_;
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
