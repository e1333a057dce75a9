// RawClient: a blocking socket that sends exactly the bytes it is given and takes an answer apart without Beast, so
// that the tests do not check a parser with itself.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace runahead {

struct SseEvent {
  std::string name, data, id;
};

struct RawAnswer {
  int status = 0;                              // 0: the connection was closed without an answer
  std::map<std::string, std::string> headers;  // lower case
  std::string body;                            // chunked coding taken off
  bool complete = false;                       // the body ended as its header said

  nlohmann::json json() const { return nlohmann::json::parse(body, nullptr, false); }
  std::string error_code() const;        // of an OpenAI error, or what is missing of it
  std::vector<SseEvent> events() const;  // comments left out
};

class RawClient {
 public:
  explicit RawClient(int port, int receive_buffer_bytes = 0);
  ~RawClient();
  RawClient(RawClient&& other) noexcept;
  RawClient(const RawClient&) = delete;

  bool send(std::string_view bytes);  // false: the other side has closed
  RawAnswer receive();                // one whole answer, or what came before the connection closed
  RawAnswer request(std::string_view bytes);
  std::string receive_head();  // with the empty line; what follows stays to be received
  // Everything that has come until `needle` is in it, the connection closes, or the time is up.
  std::string receive_until(const std::string& needle, int timeout_ms = 5000);
  bool closed_within(int timeout_ms);  // the other side closes, whatever else it sends
  void close();
  void reset();  // closes with RST instead of FIN

 private:
  bool fill(int timeout_ms);
  int fd_ = -1;
  std::string input_;
};

}  // namespace runahead
