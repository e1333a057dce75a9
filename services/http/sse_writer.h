// SseWriter: server-sent events over one Exchange. Events go into a bounded buffer that one coroutine writes out; when
// nothing has been written for kSsePingInterval it writes a comment, on wall-clock time and not on progress.
//   limits   the buffer holds kSseBufferBytesMax and one event; event() waits for room. A client that takes nothing for
//            HttpServerOptions::stall_timeout is cut, and every call then gives kCancelled.
#pragma once

#include <string>

#include "base/async/wake.h"
#include "base/limits.h"
#include "services/http/http_server.h"

namespace runahead {

class SseWriter {
 public:
  SseWriter(Exchange& exchange, asio::any_io_executor executor, Clock& clock,
            Duration ping_interval = limits::kSsePingInterval);

  // Sends the header and a first comment at once, so that the client and proxies see life before the first token.
  asio::awaitable<void> begin();
  Task<void> event(std::string data);
  Task<void> named_event(std::string name, std::string data, std::string id = {});
  // Returns when everything so far has been handed to the kernel.
  Task<void> flush();
  // Writes out what is left and ends the answer. Must be called once after begin(), whatever happened.
  asio::awaitable<void> finish();

 private:
  asio::awaitable<void> pump();
  Task<void> append(std::string bytes);

  Exchange& exchange_;
  Clock& clock_;
  Duration ping_interval_;
  std::string buffer_;  // not yet taken by the pump
  bool writing_ = false;  // the pump is inside a write
  bool ending_ = false;
  bool broken_ = false;  // the client is gone
  Wake work_;  // the pump waits for it
  Wake progress_;  // event() and flush() wait for it
  Gate pump_;
};

}  // namespace runahead
