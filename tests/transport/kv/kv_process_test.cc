// Real processes: a peer that is killed or frozen in the midst of a stream. The peer is this binary again, told by its
// environment to run the disabled test at the end.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/detached.hpp>
#include <cstdio>
#include <cstring>

#include "base/sha256.h"
#include "tests/transport/kv/kv_fixture.h"

extern char** environ;

namespace runahead {
namespace {

using namespace std::chrono_literals;

constexpr StreamToken kStreamToken{98, 99};
constexpr int32_t kLayers = 4, kPagesALayer = 8;
constexpr size_t kBytes = 2 << 20;             // 64 MiB in all: far more than the kernel or UCX buffers
constexpr int kFromParent = 3, kToParent = 4;  // descriptors in the child

// Lines over a pipe: the two addresses, then that the child has begun.
void write_line(int fd, std::string line) {
  line += '\n';
  ASSERT_EQ(write(fd, line.data(), line.size()), static_cast<ssize_t>(line.size()));
}

std::string read_line(int fd) {
  std::string line;
  for (char c; read(fd, &c, 1) == 1 && c != '\n';) line += c;
  return line;
}

class Peer {
 public:
  Peer(const std::string& transport, const std::string& role) {
    int to_child[2], from_child[2];
    EXPECT_EQ(pipe2(to_child, O_CLOEXEC) + pipe2(from_child, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    // Through high numbers first, so that no dup2 overwrites the other's source.
    posix_spawn_file_actions_adddup2(&actions, to_child[0], 100);
    posix_spawn_file_actions_adddup2(&actions, from_child[1], 101);
    posix_spawn_file_actions_adddup2(&actions, 100, kFromParent);
    posix_spawn_file_actions_adddup2(&actions, 101, kToParent);
    setenv("RUNAHEAD_TEST_PEER", (transport + " " + role).c_str(), 1);
    const char* arguments[] = {"peer", "--gtest_also_run_disabled_tests", "--gtest_filter=KvPeer.DISABLED_Run",
                               "--gtest_brief=1", nullptr};
    EXPECT_EQ(posix_spawn(&pid_, "/proc/self/exe", &actions, nullptr, const_cast<char**>(arguments), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    unsetenv("RUNAHEAD_TEST_PEER");
    close(to_child[0]), close(from_child[1]);
    write_fd_ = to_child[1], read_fd_ = from_child[0];
  }
  ~Peer() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    close(write_fd_), close(read_fd_);
  }
  void say(const std::string& line) { write_line(write_fd_, line); }
  std::string hear() { return read_line(read_fd_); }
  void signal(int number) { kill(pid_, number); }

 private:
  pid_t pid_ = -1;
  int write_fd_ = -1, read_fd_ = -1;
};

// Addresses may hold any bytes; on the pipe they travel as hexadecimal.
std::string unhex(const std::string& text) {
  std::string bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) bytes += static_cast<char>(std::stoi(text.substr(i, 2), nullptr, 16));
  return bytes;
}

class KvProcessTest : public KvTest {
 protected:
  KvProcessTest() { transfer_timeout = 700ms; }
  KvInboundParams in_params(Pages& pages, std::string sender) {
    return {kAttempt,
            kStreamToken,
            std::move(sender),
            std::make_shared<int>(0),
            [&pages](KvPageKey key) { return pages.at(key); },
            pages.num_pages,
            pages.num_layers,
            {},
            0,
            pages.page_bytes,
            pages.checksum()};
  }
  KvOutboundParams out_params(Pages& pages, std::string receiver) {
    return {kAttempt,         kStreamToken, std::move(receiver), std::make_shared<int>(0), pages.num_pages,
            pages.num_layers, {},           pages.page_bytes,    pages.checksum()};
  }
};

// Takes one page, tells so, and gives the stream's error and how long after the signal it came.
asio::awaitable<void> signal_after_first(KvInbound* in, Peer* peer, int number, Error* error, double* after,
                                         Deadline deadline, RunLoop* loop) {
  auto first = co_await in->next(loop->in(10s));
  expect_ok(first);
  peer->signal(number);
  const Time begin = loop->clock().now();
  for (;;) {
    auto arrival = co_await in->next(deadline);
    if (arrival) continue;
    *error = arrival.error();
    break;
  }
  *after = seconds(loop->clock().now() - begin);
  co_await in->close();
}

asio::awaitable<void> drain_error(KvOutbound* out, Error* error, double* after, RunLoop* loop) {
  const Time begin = loop->clock().now();
  auto drained = co_await out->drain(loop->in(20s));
  EXPECT_FALSE(drained.has_value());
  if (!drained) *error = drained.error();
  *after = seconds(loop->clock().now() - begin);
  co_await out->close();
}

TEST_P(KvProcessTest, AKilledSenderIsNoticedWithinTwoSeconds) {
  Pages pages(kLayers, kPagesALayer, kBytes);
  auto receiver = make(pages.data);
  Peer peer(GetParam(), "send");
  peer.say(hex(receiver->address()));
  auto in = std::move(*receiver->open_inbound(in_params(pages, unhex(peer.hear()))));
  Error error;
  double after = 0;
  loop.run(signal_after_first(in.get(), &peer, SIGKILL, &error, &after, loop.in(10s), &loop));
  EXPECT_EQ(name(error.code), name(ErrorCode::kWorkerLost)) << error.message;
  EXPECT_LT(after, 2.0);
  std::printf("    %-24s killed sender noticed after %.3f s: %s\n", GetParam(), after, error.message.c_str());
}

TEST_P(KvProcessTest, AKilledReceiverIsNoticedWithinTwoSeconds) {
  Pages pages(kLayers, kPagesALayer, kBytes);
  auto sender = make(pages.data);
  Peer peer(GetParam(), "receive");
  peer.say(hex(sender->address()));
  auto out = std::move(*sender->open_outbound(out_params(pages, unhex(peer.hear()))));
  for (const KvPageKey key : pages.keys(1)) {
    if (key.layer == 0 || key.page > 0) out->post(key, pages.at(key), std::nullopt);
  }
  loop.io().restart();
  loop.io().run_for(500ms);  // everything posted has moved; three pages are still to come
  EXPECT_GT(out->stats().pages, 20u);
  peer.signal(SIGKILL);
  for (int32_t layer = 1; layer < kLayers; ++layer) out->post({layer, 0}, pages.at({layer, 0}), std::nullopt);
  Error error;
  double after = 0;
  loop.run(drain_error(out.get(), &error, &after, &loop));
  EXPECT_EQ(name(error.code), name(ErrorCode::kWorkerLost)) << error.message;
  EXPECT_LT(after, 2.0);
  std::printf("    %-24s killed receiver noticed after %.3f s: %s\n", GetParam(), after, error.message.c_str());
}

TEST_P(KvProcessTest, AFrozenReceiverIsADeadlineExceeded) {
  Pages pages(kLayers, kPagesALayer, kBytes);
  auto sender = make(pages.data);
  Peer peer(GetParam(), "receive");
  peer.say(hex(sender->address()));
  auto out = std::move(*sender->open_outbound(out_params(pages, unhex(peer.hear()))));
  out->post({0, 0}, pages.at({0, 0}), std::nullopt);
  loop.io().restart();
  loop.io().run_for(300ms);
  peer.signal(SIGSTOP);
  for (const KvPageKey key : pages.keys(1))
    if (key != KvPageKey{0, 0}) out->post(key, pages.at(key), std::nullopt);
  Error error;
  double after = 0;
  loop.run(drain_error(out.get(), &error, &after, &loop));
  EXPECT_EQ(name(error.code), name(ErrorCode::kDeadlineExceeded)) << error.message;
  EXPECT_LT(after, 3.0);
  std::printf("    %-24s frozen receiver noticed after %.3f s: %s\n", GetParam(), after, error.message.c_str());
}

TEST_P(KvProcessTest, AFrozenSenderEndsAtTheCallersDeadlineAndCloseStillReturns) {
  Pages pages(kLayers, kPagesALayer, kBytes);
  auto receiver = make(pages.data);
  Peer peer(GetParam(), "send");
  peer.say(hex(receiver->address()));
  auto in = std::move(*receiver->open_inbound(in_params(pages, unhex(peer.hear()))));
  Error error;
  double after = 0;
  loop.run(signal_after_first(in.get(), &peer, SIGSTOP, &error, &after, loop.in(2s), &loop));
  EXPECT_EQ(name(error.code), name(ErrorCode::kDeadlineExceeded)) << error.message;
  pages.overwrite(std::byte{0xAA});
  peer.signal(SIGCONT);  // it wakes after the pages have been given to somebody else
  loop.io().restart();
  loop.io().run_for(300ms);
  EXPECT_TRUE(pages.all_are(std::byte{0xAA}));
}

INSTANTIATE_TEST_SUITE_P(Kv, KvProcessTest,
                         testing::Values("tcp", "ucx:tcp,self", "ucx:posix,sysv,cma,tcp,self", "nccl"), param_name);

asio::awaitable<void> take(KvInbound* in, RunLoop* loop) {
  for (;;) {
    auto arrival = co_await in->next(loop->in(30s));
    if (!arrival) break;
  }
}

// The peer's side: role send posts half of the pages, 20 ms apart; receive takes what comes. It ends when it is killed.
TEST(KvPeer, DISABLED_Run) {
  const char* what = std::getenv("RUNAHEAD_TEST_PEER");
  if (what == nullptr) GTEST_SKIP() << "only run by the tests above";
  std::string transport = what;
  const std::string role = transport.substr(transport.rfind(' ') + 1);
  transport.resize(transport.rfind(' '));
  if (const size_t colon = transport.find(':'); colon != std::string::npos) {
    setenv("UCX_TLS", transport.substr(colon + 1).c_str(), 1);
    transport.resize(colon);
  }
  RunLoop loop;
  Pages pages(kLayers, kPagesALayer, kBytes);
  KvTransportOptions options;
  options.incarnation = static_cast<uint64_t>(getpid());
  options.device = device_double();
  auto made = make_kv_transport(transport, options, loop.executor(), loop.clock());
  ASSERT_TRUE(made.has_value()) << made.error().message;
  ASSERT_TRUE((*made)->register_memory(pages.data).has_value());
  const std::string other = unhex(read_line(kFromParent));
  write_line(kToParent, hex((*made)->address()));
  std::unique_ptr<KvInbound> in;
  std::unique_ptr<KvOutbound> out;
  if (role == "send") {
    out = std::move(*(*made)->open_outbound(
        {kAttempt, kStreamToken, other, nullptr, kPagesALayer, kLayers, {}, kBytes, pages.checksum()}));
    for (const KvPageKey key : pages.keys(1)) {
      if (key.layer % 2 == 0) continue;
      out->post(key, pages.at(key), std::nullopt);
      loop.io().restart();
      loop.io().run_for(20ms);
    }
  } else {
    in = std::move(*(*made)->open_inbound({kAttempt,
                                           kStreamToken,
                                           other,
                                           nullptr,
                                           [&pages](KvPageKey key) { return pages.at(key); },
                                           kPagesALayer,
                                           kLayers,
                                           {},
                                           0,
                                           kBytes,
                                           pages.checksum()}));
    asio::co_spawn(loop.io(), take(in.get(), &loop), asio::detached);
  }
  loop.io().restart();
  loop.io().run_for(30s);
}

}  // namespace
}  // namespace runahead
