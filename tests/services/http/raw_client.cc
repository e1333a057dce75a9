#include "tests/services/http/raw_client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <utility>

namespace runahead {
namespace {

constexpr int kTimeoutMs = 10'000;

std::string take_line(std::string& text, const std::string& end) {
  const size_t at = text.find(end);
  std::string line = text.substr(0, at);
  text.erase(0, at == std::string::npos ? text.size() : at + end.size());
  return line;
}

}  // namespace

std::string RawAnswer::error_code() const {
  const nlohmann::json parsed = json();
  if (!parsed.is_object() || !parsed.contains("error")) return "no error object in: " + body;
  const nlohmann::json& error = parsed["error"];
  for (const char* key : {"message", "type", "param", "code"})
    if (!error.contains(key)) return std::string("the error has no ") + key;
  if (error["message"].get<std::string>().empty()) return "the error has no text";
  return error["code"].get<std::string>();
}

std::vector<SseEvent> RawAnswer::events() const {
  std::vector<SseEvent> events;
  std::string rest = body;
  while (!rest.empty()) {
    std::string block = take_line(rest, "\n\n");
    SseEvent event;
    bool any = false;
    while (!block.empty()) {
      std::string line = take_line(block, "\n");
      if (line.starts_with(":")) continue;
      any = true;
      const std::string name = take_line(line, ": ");
      if (name == "data") event.data += line;
      if (name == "event") event.name = line;
      if (name == "id") event.id = line;
    }
    if (any) events.push_back(std::move(event));
  }
  return events;
}

RawClient::RawClient(int port, int receive_buffer_bytes) {
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (receive_buffer_bytes > 0)
    setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof receive_buffer_bytes);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    ADD_FAILURE() << "cannot connect to " << port;
}

RawClient::~RawClient() { close(); }
RawClient::RawClient(RawClient&& other) noexcept : fd_(std::exchange(other.fd_, -1)), input_(std::move(other.input_)) {}

void RawClient::reset() {
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  close();
}

void RawClient::close() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

bool RawClient::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

bool RawClient::fill(int timeout_ms) {
  pollfd waiting{fd_, POLLIN, 0};
  if (poll(&waiting, 1, timeout_ms) <= 0) return false;
  char bytes[16384];
  const ssize_t received = recv(fd_, bytes, sizeof bytes, 0);
  if (received <= 0) return false;
  input_.append(bytes, static_cast<size_t>(received));
  return true;
}

RawAnswer RawClient::request(std::string_view bytes) {
  send(bytes);
  return receive();
}

std::string RawClient::receive_head() {
  while (input_.find("\r\n\r\n") == std::string::npos)
    if (!fill(kTimeoutMs)) return {};
  return take_line(input_, "\r\n\r\n") + "\r\n\r\n";
}

RawAnswer RawClient::receive() {
  RawAnswer answer;
  while (input_.find("\r\n\r\n") == std::string::npos)
    if (!fill(kTimeoutMs)) return answer;
  std::string head = take_line(input_, "\r\n\r\n") + "\r\n";
  const std::string status_line = take_line(head, "\r\n");
  answer.status = std::stoi(status_line.substr(9, 3));
  while (!head.empty()) {
    std::string line = take_line(head, "\r\n");
    std::string name = take_line(line, ": ");
    for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    answer.headers[name] = line;
  }
  if (answer.status == 204 || answer.status == 304) {  // RFC 9110, 6.4.1: nothing follows
    answer.complete = true;
    return answer;
  }
  if (answer.headers.contains("content-length")) {
    const size_t length = std::stoul(answer.headers["content-length"]);
    while (input_.size() < length && fill(kTimeoutMs)) {
    }
    answer.complete = input_.size() >= length;
    answer.body = input_.substr(0, length);
    input_.erase(0, length);
    return answer;
  }
  for (;;) {
    while (input_.find("\r\n") == std::string::npos)
      if (!fill(kTimeoutMs)) return answer;
    const size_t length = std::stoul(take_line(input_, "\r\n"), nullptr, 16);
    while (input_.size() < length + 2)
      if (!fill(kTimeoutMs)) return answer;
    answer.body += input_.substr(0, length);
    input_.erase(0, length + 2);
    if (length == 0) {
      answer.complete = true;
      return answer;
    }
  }
}

std::string RawClient::receive_until(const std::string& needle, int timeout_ms) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  while (input_.find(needle) == std::string::npos) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now()).count();
    if (left <= 0 || !fill(static_cast<int>(left))) break;
  }
  return input_;
}

bool RawClient::closed_within(int timeout_ms) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now()).count();
    if (left <= 0) return false;
    pollfd waiting{fd_, POLLIN, 0};
    if (poll(&waiting, 1, static_cast<int>(left)) <= 0) return false;
    char bytes[16384];
    if (recv(fd_, bytes, sizeof bytes, 0) <= 0) return true;
  }
}

}  // namespace runahead
