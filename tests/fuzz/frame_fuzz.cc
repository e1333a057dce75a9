// The control plane's byte stream: whatever comes, the parser must not depend on how the stream was cut, must give back
// exactly the bytes it was given, and must hold no more than one frame.
#include <cstdlib>
#include <cstring>

#include "transport/control/frame.h"
#include "transport/tcp_socket.h"

namespace {

using runahead::FrameParser;

constexpr uint32_t kFrameBytesMax = 4096;

void check(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  if (size >= runahead::kPreambleBytes)
    (void)runahead::check_preamble(bytes.first<runahead::kPreambleBytes>(), runahead::Plane::kControl);
  (void)runahead::parse_host_port({reinterpret_cast<const char*>(data), size});

  std::vector<std::string> whole, in_steps;
  FrameParser at_once(kFrameBytesMax), step_by_step(kFrameBytesMax);
  const bool accepted = at_once.feed(bytes, whole).has_value();
  const size_t step = 1 + (size == 0 ? 0 : data[0] % 7);
  bool accepted_in_steps = true;
  for (size_t at = 0; at < size && accepted_in_steps; at += step)
    accepted_in_steps = step_by_step.feed(bytes.subspan(at, std::min(step, size - at)), in_steps).has_value();
  check(accepted == accepted_in_steps);
  check(whole == in_steps);

  std::string again;
  for (const std::string& frame : whole) {
    check(!frame.empty() && frame.size() <= kFrameBytesMax);
    again += runahead::encode_frame(frame);
  }
  check(again.size() <= size && std::memcmp(again.data(), data, again.size()) == 0);
  return 0;
}
