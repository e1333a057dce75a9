#include "actors/worker/layer_window.h"

namespace runahead {

void LayerWindow::begin(const KvLease& kv) {
  num_layers_ = kv.num_layers();
  at_once_ = kv.layers_at_once();
  open_.store(at_once_, std::memory_order_release);
}

void LayerWindow::attended(int32_t count) {
  attended_ = count;
  changed_.notify();
}

Task<void> LayerWindow::wait_until_open(int32_t layer) {
  while (open() <= layer) {
    if (error_) co_return std::unexpected(*error_);
    co_await changed_.wait();
  }
  co_return Result<void>{};
}

Task<void> LayerWindow::recycle(PrefixReceiver& prefix, PageSender& downstream, Deadline deadline) {
  for (int32_t done = 1; done + at_once_ <= num_layers_ && !error_; ++done) {
    while (attended_ < done && !error_) co_await changed_.wait();
    if (error_) break;
    Result<void> sent = co_await downstream.wait_for_sent_layers(done, deadline);
    if (!sent) {
      if (!error_) error_ = sent.error();
      changed_.notify();
      co_return sent;
    }
    open_.store(done + at_once_, std::memory_order_release);
    prefix.open_layers(done + at_once_);
    changed_.notify();
  }
  co_return Result<void>{};
}

void LayerWindow::close() {
  if (!error_) error_ = Error{ErrorCode::kCancelled, "the attempt has ended"};
  changed_.notify();
}

}  // namespace runahead
