// Who gets pages, and from whom they are taken: the data plane over TLS, with every kind of certificate.
#include "tests/transport/kv/kv_fixture.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;
using test::TestAuthority;

class KvTlsTest : public KvTest {
 protected:
  KvTlsTest() { connect_timeout = 500ms, transfer_timeout = 500ms; }

  std::shared_ptr<TlsIdentity> identity(const TlsFiles& files, TlsRole role) {
    auto opened = TlsIdentity::open(files, role, loop.clock());
    EXPECT_TRUE(opened) << (opened ? "" : opened.error().message);
    return opened ? *opened : nullptr;
  }
  std::shared_ptr<TlsIdentity> worker(TestAuthority& of, TlsRole role = TlsRole::kPrefill,
                                      Validity validity = {.until = 1h}) {
    TlsFiles files = of.files("worker", role, validity);
    files.authorities = authority_.path("ca.pem");
    return identity(files, role);
  }

  // Sends pages from the one to the other; what the receiver has to say.
  Result<void> send(std::shared_ptr<TlsIdentity> of_sender, std::shared_ptr<TlsIdentity> of_receiver) {
    Pages from(2, 3, 4096), to(2, 3, 4096);
    from.fill(1);
    identity_ = std::move(of_sender);
    const auto sender = make(from.data);
    identity_ = std::move(of_receiver);
    const auto receiver = make(to.data);
    const AttemptId attempt{1, ++last_request_, 1};
    auto in = *receiver->open_inbound(inbound(to, *sender, attempt));
    auto out = *sender->open_outbound(outbound(from, *receiver, attempt));
    for (const KvPageKey key : from.keys(0)) out->post(key, from.at(key), std::nullopt);
    Result<void> taken;
    const auto take = [](KvInbound* stream, Deadline deadline, Result<void>* result) -> asio::awaitable<void> {
      *result = co_await take_all(stream, 6, deadline);
    };
    loop.run(take(in.get(), loop.in(5s), &taken));
    const bool came = from.data == to.data, none = to.all_are(std::byte{0});
    EXPECT_TRUE(taken ? came : none) << "all pages, or not a byte of one";
    loop.run(in->close());
    loop.run(out->close());
    loop.run(sender->shutdown());
    loop.run(receiver->shutdown());
    return taken;
  }

  TestAuthority authority_, other_;
  uint64_t last_request_ = 0;
};

TEST_P(KvTlsTest, PagesGoFromWorkerToWorkerAndToNobodyElse) {
  const auto good = worker(authority_);
  expect_ok(send(good, worker(authority_, TlsRole::kDecode)));
  const std::vector<std::pair<std::string, std::shared_ptr<TlsIdentity>>> strangers = {
      {"without TLS", nullptr},
      {"of another authority", worker(other_)},
      {"expired", worker(authority_, TlsRole::kPrefill, {.from = -2h, .until = -1h})},
      {"of the coordinator", worker(authority_, TlsRole::kCoordinator)}};
  std::map<TlsRefusal, int> refused;
  good->on_refusal([&](TlsRefusal why) { ++refused[why]; });
  for (const auto& [name, stranger] : strangers) {
    EXPECT_FALSE(send(good, stranger)) << "to one " << name;
    EXPECT_FALSE(send(stranger, good)) << "from one " << name;
  }
  for (const TlsRefusal why :
       {TlsRefusal::kNoTls, TlsRefusal::kUnknownAuthority, TlsRefusal::kExpired, TlsRefusal::kWrongRole})
    EXPECT_GE(refused[why], 1) << kTlsRefusals[static_cast<size_t>(why)];
}

INSTANTIATE_TEST_SUITE_P(Kv, KvTlsTest, testing::Values("tcp", "ucx:tcp,self"), param_name);

}  // namespace
}  // namespace runahead
