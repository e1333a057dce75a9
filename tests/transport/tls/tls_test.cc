// Who may speak on the wire between processes: the control plane over TLS, with every kind of certificate.
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <filesystem>

#include "base/limits.h"
#include "tests/support/test_authority.h"
#include "tests/transport/run_loop.h"
#include "transport/control/frame.h"
#include "transport/control/tcp_control.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;
using test::TestAuthority;
using testing::HasSubstr;
using Kind = ControlEvent::Kind;
using Identity = std::shared_ptr<TlsIdentity>;

class Tls : public testing::Test {
 protected:
  Identity identity(TlsFiles files, TlsRole role) {
    auto opened = TlsIdentity::open(std::move(files), role, loop_.clock());
    EXPECT_TRUE(opened) << (opened ? "" : opened.error().message);
    return opened ? *opened : nullptr;
  }
  Identity coordinator(std::string revoked = {}) {
    TlsFiles files = authority_.files("coordinator", TlsRole::kCoordinator);
    files.revoked = std::move(revoked);
    return identity(std::move(files), TlsRole::kCoordinator);
  }
  Identity worker(TlsRole role = TlsRole::kPrefill) { return identity(authority_.files("worker", role), role); }

  void listen(Identity identity) {
    auto created = TcpControlServer::create(loop_.executor(), loop_.clock(), {.identity = std::move(identity)});
    ASSERT_TRUE(created.has_value()) << created.error().message;
    server_ = std::move(*created);
  }
  // What the server's kConnected says of a worker that comes with this identity, and gets a message through.
  Result<std::string> join(Identity worker) {
    Result<std::string> outcome;
    loop_.run([](Tls* self, Identity identity, Result<std::string>* out) -> asio::awaitable<void> {
      *out = co_await self->try_to_join(std::move(identity));
    }(this, std::move(worker), &outcome));
    return outcome;
  }
  Task<std::string> try_to_join(Identity identity) {
    TcpControlClient client(loop_.executor(), loop_.clock(), {"127.0.0.1", server_->port()}, std::move(identity));
    auto connected = co_await client.connect(loop_.in(5s));
    const PeerId peer = CO_TRY(connected);
    client.send(peer, "hello");
    // A client's end stands before the server has looked at its certificate (TLS 1.3): then it is lost a little later.
    auto event = co_await server_->receive(loop_.in(300ms));
    if (!event) co_return fail(ErrorCode::kUnavailable, "the server has taken nobody");
    const std::string role = event->payload;
    auto message = co_await server_->receive(loop_.in(5s));
    EXPECT_TRUE(message && message->payload == "hello");
    server_->disconnect(event->peer);
    co_await server_->receive(loop_.in(5s));
    co_await client.shutdown();
    co_return role;
  }

  RunLoop loop_;
  TestAuthority authority_;
  std::unique_ptr<TcpControlServer> server_;
};

TEST_F(Tls, WorkersAreTakenAndTheirRoleIsKnown) {
  listen(coordinator());
  EXPECT_EQ(join(worker(TlsRole::kPrefill)).value_or("nobody"), "prefill");
  EXPECT_EQ(join(worker(TlsRole::kDecode)).value_or("nobody"), "decode");
}

TEST_F(Tls, WhoDoesNotBelongHereIsNotTaken) {
  authority_.files("gone", TlsRole::kPrefill);
  listen(coordinator(authority_.revoke({"gone"})));
  TestAuthority other;
  const auto of_other = [&] {
    TlsFiles files = other.files("worker", TlsRole::kPrefill);
    files.authorities = authority_.path("ca.pem");
    return files;
  };
  const TlsFiles gone{authority_.path("gone.pem"), authority_.path("gone.key"), authority_.path("ca.pem"), {}};
  const std::vector<std::tuple<std::string, TlsFiles, TlsRole>> strangers = {
      {"of another authority", of_other(), TlsRole::kPrefill},
      {"expired", authority_.files("old", TlsRole::kPrefill, {.from = -2h, .until = -1h}), TlsRole::kPrefill},
      {"not yet valid", authority_.files("new", TlsRole::kPrefill, {.from = 1h, .until = 2h}), TlsRole::kPrefill},
      {"of a coordinator", authority_.files("second", TlsRole::kCoordinator), TlsRole::kCoordinator},
      {"revoked", gone, TlsRole::kPrefill},
  };
  for (const auto& [name, files, role] : strangers) EXPECT_FALSE(join(identity(files, role))) << name;
  EXPECT_FALSE(join(nullptr)) << "without TLS";
  EXPECT_TRUE(join(worker())) << "who belongs here still is";
}

TEST_F(Tls, AWorkerBelievesOnlyTheCoordinator) {
  listen(identity(authority_.files("worker", TlsRole::kDecode), TlsRole::kDecode));
  const auto by_a_worker = join(worker());
  ASSERT_FALSE(by_a_worker);
  EXPECT_THAT(by_a_worker.error().message, HasSubstr("of a decode, and it should be the coordinator"));
  TestAuthority other;
  listen(identity(other.files("coordinator", TlsRole::kCoordinator), TlsRole::kCoordinator));
  const auto by_another = join(worker());
  ASSERT_FALSE(by_another);
  EXPECT_THAT(by_another.error().message, HasSubstr("not believed"));
  listen(nullptr);
  const auto without = join(worker());
  ASSERT_FALSE(without);
  EXPECT_THAT(without.error().message, HasSubstr("the peer speaks no TLS"));
}

TEST_F(Tls, NewFilesServeFromTheNextHandshakeOnAndBrokenOnesDoNot) {
  const TlsFiles files = authority_.files("worker", TlsRole::kPrefill, {.from = -2h, .until = -1h});
  const Identity late = identity(files, TlsRole::kPrefill);
  listen(coordinator());
  EXPECT_FALSE(join(late)) << "expired";
  const auto look_again = [this] {
    loop_.run([](Clock* clock) -> asio::awaitable<void> { co_await clock->sleep_for(1100ms); }(&loop_.clock()));
  };
  authority_.issue("worker", TlsRole::kPrefill);
  look_again();
  EXPECT_TRUE(join(late)) << "renewed";
  authority_.write("worker.pem", "half a file");
  look_again();
  EXPECT_TRUE(join(late)) << "as before";
  authority_.issue("worker", TlsRole::kDecode);
  look_again();
  EXPECT_EQ(join(late).value_or("nobody"), "prefill") << "a process does not change its role";
}

TEST_F(Tls, FilesThatCannotServeAreRefusedByName) {
  const TlsFiles good = authority_.files("worker", TlsRole::kPrefill);
  authority_.files("other", TlsRole::kPrefill);
  const auto refusal = [&](TlsFiles files, TlsRole role = TlsRole::kPrefill) {
    const auto opened = TlsIdentity::open(std::move(files), role, loop_.clock());
    return opened ? std::string("taken") : opened.error().message;
  };
  EXPECT_EQ(refusal(good), "taken");
  EXPECT_THAT(refusal(good, TlsRole::kDecode), HasSubstr("its role is prefill, and this process is decode"));
  EXPECT_THAT(refusal({.certificate = good.certificate}), HasSubstr("--tls-key is missing"));
  TlsFiles files = good;
  files.key = authority_.path("other.key");
  EXPECT_THAT(refusal(files), HasSubstr("the file of --tls-key"));
  files = good;
  files.authorities = authority_.path("nowhere.pem");
  EXPECT_THAT(refusal(files), HasSubstr("the file of --tls-ca"));
  files = good;
  files.revoked = good.certificate;
  EXPECT_THAT(refusal(files), HasSubstr("the file of --tls-revoked"));
  files.revoked.clear();
  files.certificate = authority_.path("ca.pem");
  files.key = authority_.path("ca.key");
  authority_.write("ca.key", authority_.authority().key);
  EXPECT_THAT(refusal(files), HasSubstr("names no role"));
}

TEST_F(Tls, BeyondLoopbackNeedsIt) {
  const auto listen_everywhere = [&](Identity identity) {
    return TcpControlServer::create(loop_.executor(), loop_.clock(),
                                    {.listen = {"0.0.0.0", 0}, .identity = std::move(identity)});
  };
  EXPECT_TRUE(listen_everywhere(coordinator()));
  const auto without = listen_everywhere(nullptr);
  ASSERT_FALSE(without);
  EXPECT_THAT(without.error().message, HasSubstr("needs --tls-cert"));
}

TEST_F(Tls, SaysHowLongACertificateLasts) {
  authority_.files("worker", TlsRole::kPrefill, {.until = 5000s});
  const auto left = left_of(authority_.read("worker.pem"));
  ASSERT_TRUE(left);
  EXPECT_NEAR(static_cast<double>(left->count()), 5000, 60);
  EXPECT_FALSE(left_of("no certificate"));
}

}  // namespace
}  // namespace runahead
