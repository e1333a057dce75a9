// LayerWindow: a rank that has memory for some of its layers at once. The pages of a layer that it has attended to and passed
// on take those of a later one: it opens them for the rank before, and for its own keys and values. So a chain holds one whole
// cache, at its end, instead of a triangle of them. Where the lease has every layer there is nothing to wait for.
//   why it ends  a rank waits here until the next one has taken a layer that lies a window behind. The last rank takes every
//                page at once, the rank before it therefore too, and so on to the first: nobody waits for ever.
//   threads      the actor's executor; open() on the lane, too.
#pragma once

#include <atomic>
#include <optional>

#include "actors/worker/kv_streams.h"

namespace runahead {

class LayerWindow {
 public:
  LayerWindow(asio::any_io_executor executor, Clock& clock) : changed_(std::move(executor), clock) {}

  // Before anything else.
  void begin(const KvLease& kv);
  // Pages of layers [0, open()) may be written.
  int32_t open() const { return open_.load(std::memory_order_acquire); }
  // This rank reads no page of layers [0, count) any more.
  void attended(int32_t count);
  // Until open() > layer; an error if recycle() has ended before.
  Task<void> wait_until_open(int32_t layer);
  // Opens layers until all are, or close().
  Task<void> recycle(PrefixReceiver& prefix, PageSender& downstream, Deadline deadline);
  void close();

 private:
  int32_t num_layers_ = 0;
  int32_t at_once_ = 0;
  int32_t attended_ = 0;
  std::atomic<int32_t> open_ = 0;
  std::optional<Error> error_;
  Wake changed_;
};

}  // namespace runahead
