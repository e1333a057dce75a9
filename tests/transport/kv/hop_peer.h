// A receiver of one's own on a hop, frame by frame: what a peer may say that our transports would not.
#pragma once

#include <boost/asio/write.hpp>
#include <vector>

#include "tests/transport/run_loop.h"
#include "transport/control/frame.h"
#include "transport/kv/hop_frame.h"
#include "transport/kv/kv_address.h"
#include "transport/kv/kv_page_header.h"
#include "transport/kv/stream_hello.h"

namespace runahead {

inline HopFrame frame_of(HopFrameKind kind, uint32_t stream, std::span<const std::byte> body, uint64_t at = 0) {
  HopFrame made{kind, stream, at, {}};
  std::ranges::copy(body, made.body.begin());
  return made;
}

inline asio::ip::tcp::socket connect_to(RunLoop& loop, const KvAddress& sender) {
  asio::ip::tcp::socket socket(loop.io());
  socket.connect({asio::ip::make_address(sender.place.host), sender.place.port});
  asio::write(socket, asio::buffer(encode_preamble(Plane::kData)));
  return socket;
}

// What the sender answers to these frames until it closes, or for a moment; it has that moment after each of them.
inline std::vector<std::byte> answers_to(RunLoop& loop, const KvAddress& sender, const std::vector<HopFrame>& frames,
                                         bool* closed) {
  asio::ip::tcp::socket socket = connect_to(loop, sender);
  boost::system::error_code error;
  for (const HopFrame& frame : frames) {
    asio::write(socket, asio::buffer(encode(frame)), error);
    loop.io().restart();
    loop.io().run_for(std::chrono::milliseconds(50));
  }
  socket.non_blocking(true);
  std::vector<std::byte> answer(1 << 16);
  size_t size = 0;
  for (error.clear(); !error;) size += socket.read_some(asio::buffer(&answer[size], answer.size() - size), error);
  *closed = error != asio::error::would_block;
  answer.resize(size);
  return answer;
}

}  // namespace runahead
