#include <boost/asio/post.hpp>
#include <utility>
#include <vector>

#include "transport/kv/ucx_state.h"

namespace runahead {

void UcxConnection::send(unsigned id, std::span<const std::byte> header) {
  if (closing_) return;
  auto bytes = std::make_shared<std::vector<std::byte>>(header.begin(), header.end());  // UCX reads it until the end
  auto* kept = keep(state_->pending, [bytes](const char*, auto) {});  // a failure shows up as the endpoint's error
  const auto param = request_param(kept, UCP_AM_SEND_FLAG_REPLY | UCP_AM_SEND_FLAG_EAGER);
  post(ucp_am_send_nbx(handle, id, bytes->data(), bytes->size(), nullptr, 0, &param), kept);
}

void UcxConnection::send_page(const KvOutboundLedger::Page& page, Done done) {
  if (closing_) return done("the endpoint is closed", std::nullopt);
  const auto wire =
      std::make_shared<std::array<std::byte, kKvPageHeaderBytes>>(encode(page.header));  // read until the end
  auto* kept =
      keep(state_->pending, [wire, done = std::move(done)](const char* error, auto crc32c) { done(error, crc32c); });
  auto param = request_param(kept, UCP_AM_SEND_FLAG_REPLY | UCP_AM_SEND_FLAG_RNDV);
  if (state_->memory != nullptr) {
    param.op_attr_mask |= UCP_OP_ATTR_FIELD_MEMH;
    param.memh = state_->memory;
  }
  post(ucp_am_send_nbx(handle, kPageId, wire->data(), wire->size(), page.bytes.data(), page.bytes.size(), &param),
       kept);
}

void UcxConnection::on_error(ucs_status_t status) {
  if (closing_) return;
  if (const auto stream = in.lock()) stream->on_lost(ucs_status_string(status));
  if (const auto stream = out.lock()) stream->on_lost(ucs_status_string(status));
  close();
}

void UcxConnection::watch_wireup() {
  auto* kept = keep(state_->pending, [self = shared_from_this()](const char*, auto) {
    self->wired_ = true;
    if (self->state_ != nullptr) self->state_->streams->changed.notify();
    if (self->closing_) self->close_later();
  });
  const auto param = request_param(kept, 0);
  post(ucp_ep_flush_nbx(handle, &param), kept);
}

// UCX 1.13's connection manager does not bear it that an endpoint goes while it connects: an event that its thread has
// already taken for that descriptor meets whichever endpoint gets the number next, and an assertion ends the process.
void UcxConnection::close() {
  if (closing_) return;
  closing_ = true;
  ++state_->closing;
  wireup_timer_.cancel();
  state_->streams->changed.notify();
  if (wired_) return close_later();
  wireup_timer_.start(kWireupTimeout, shared_from_this());
}

// Later, for this may be called from within one of UCX's callbacks.
void UcxConnection::close_later() {
  if (std::exchange(leaving_, true)) return;
  wireup_timer_.cancel();
  asio::post(state_->streams->executor, [self = shared_from_this()] {
    if (self->state_ != nullptr) self->really_close();
  });
}

void UcxConnection::really_close() {
  if (std::exchange(told_, true)) return;
  auto* kept = keep(state_->pending, [self = shared_from_this()](const char*, auto) { self->set_closed(); });
  const auto param = request_param(kept, UCP_EP_CLOSE_FLAG_FORCE);
  post(ucp_ep_close_nbx(handle, &param), kept);
}

void UcxConnection::set_closed() {
  if (state_ == nullptr) return;
  closed_ = true;
  state_->closing -= closing_ ? 1 : 0;
  state_->endpoints.erase(handle);
  state_->streams->changed.notify();
}

void UcxConnection::give_up_wireup() {
  if (closing_) return close_later();
  if (!hello) return close();
  hello.reset();
  send_reply(StreamReply::kUnknownStream);
  start_wireup_timer();
}

}  // namespace runahead
