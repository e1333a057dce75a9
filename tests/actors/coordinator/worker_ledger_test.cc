// What the coordinator believes of a worker's pages, beside a pool that does what it is told.
#include <gtest/gtest.h>

#include "actors/coordinator/worker_registry.h"
#include "base/rng.h"
#include "model/kv_pages.h"

namespace runahead {
namespace {

// A worker of a model whose layers, but for one, see the last 150 tokens. It leases, keeps, goes on and drops as it is told.
class Ledger {
 public:
  explicit Ledger(int64_t pages)
      : pool_(64, pages), worker_{.pages_total = pages, .speed = {ModelCost{}, WorkerSpeed{}}} {}

  // A prompt of one of three beginnings, from which it departs at some place.
  void start(SeededRng& rng) {
    std::vector<TokenId> prompt(1 + rng.next() % 700, static_cast<TokenId>(rng.next() % 3));
    prompt[rng.next() % prompt.size()] = 9;
    const auto length = static_cast<int32_t>(prompt.size()), full = length / kPageTokens;
    const WorkerPrefixes::Hit hit = worker_.prefixes.find(page_keys("", prompt), (length - 1) / kPageTokens);
    const bool decodes = rng.next() % 3 != 0, keeps_prompt = decodes && full > hit.columns;
    const auto tokens = length + 1 + static_cast<int32_t>(rng.next() % 700);
    const int32_t begin = decodes ? full : hit.columns;
    Attempt attempt{.id = {1, ++last_, 1}, .prompt = length, .page = length / kPageTokens, .decodes = decodes};
    WorkerPrefixes::Claim claim{.hit = hit,
                                .lease = decodes ? sequence_lease(model_, length, tokens, hit.columns, keeps_prompt)
                                                 : rank_lease(model_, {begin * kPageTokens, length}, hit.columns, true),
                                .keep = ++last_number_,
                                .least = least_of(hit, begin)};
    if (keeps_prompt)
      claim.keep_prompt = attempt.keep_prompt = ++last_number_, claim.prompt_keys = page_keys("", prompt);
    attempt.keep = claim.keep;
    attempt.last_page = claim.lease.num_pages - 1;
    attempt.text = prompt;
    attempt.text.resize(static_cast<size_t>(decodes ? tokens : length), static_cast<TokenId>(20 + rng.next() % 50));
    const bool fits = WorkerRegistry::room(worker_) >= claim.lease.own_pages() + worker_.prefixes.pages_idle(hit);
    if (!fits) return void(++waited);
    const LeaseShape shape = claim.lease;
    WorkerRegistry::hold(worker_, attempt.id, std::move(claim));
    std::shared_ptr<KvLease> beginning = hit.prefix == 0 ? nullptr : kept_.at(hit.prefix);
    drop();
    ASSERT_TRUE(!beginning || beginning->has_beginning(model_, hit.columns)) << "the worker would say that it is stale";
    behind += beginning ? 1 : 0;
    auto lease = beginning ? pool_.lease_behind(std::move(beginning), shape) : pool_.lease(shape);
    ASSERT_TRUE(lease) << "what fits, by the ledger, does";
    attempt.lease = *lease;
    attempts_.push_back(std::move(attempt));
  }

  void keep_prompt(SeededRng& rng) {
    Attempt& attempt = attempts_[rng.next() % attempts_.size()];
    if (attempt.keep_prompt == 0 || attempt.page > attempt.prompt / kPageTokens) return;
    const int32_t columns = attempt.prompt / kPageTokens;
    kept_[std::exchange(attempt.keep_prompt, 0)] = pool_.share(*attempt.lease, columns);
    WorkerRegistry::keep_prompt(worker_, attempt.id, columns);
  }

  void go_on(SeededRng& rng) {
    Attempt& attempt = attempts_[rng.next() % attempts_.size()];
    if (!attempt.decodes || attempt.page == attempt.last_page) return;
    ASSERT_TRUE(attempt.lease->reach(++attempt.page));
  }

  // Its reader may have got less than was made.
  void end(SeededRng& rng) {
    const auto at = static_cast<std::ptrdiff_t>(rng.next() % attempts_.size());
    Attempt attempt = std::move(attempts_[static_cast<size_t>(at)]);
    attempts_.erase(attempts_.begin() + at);
    const int32_t least = attempt.prompt / kPageTokens;
    int32_t columns = attempt.page - (rng.next() % 4 == 0 ? static_cast<int32_t>(rng.next() % 3) : 0);
    columns = std::max(columns, least);
    if (rng.next() % 5 == 0 || !attempt.lease->reach(columns)) columns = 0;
    turned += columns > 0 && columns > least + 3 ? 1 : 0;
    if (columns > 0) kept_[attempt.keep] = pool_.share(*attempt.lease, columns);
    attempt.lease.reset();
    worker_.prefixes.set_keys(attempt.id, page_keys("", attempt.text));
    WorkerRegistry::release(worker_, attempt.id, columns);
  }

  bool is_idle() const { return attempts_.empty(); }
  void drop() {
    for (const uint64_t number : worker_.prefixes.take_dropped()) kept_.erase(number);
  }
  void expect_equal() const {
    const KvPool::Usage usage = pool_.usage();
    ASSERT_EQ(usage.total - usage.free, worker_.pages_held + worker_.prefixes.pages());
    ASSERT_EQ(WorkerRegistry::room(worker_), usage.idle()) << "kept pages that nobody reads are free ones";
  }

  int behind = 0, turned = 0, waited = 0;

 private:
  struct Attempt {
    AttemptId id;
    int32_t prompt = 0, page = 0, last_page = 0;
    bool decodes = false;
    uint64_t keep = 0, keep_prompt = 0;
    std::vector<TokenId> text;
    std::shared_ptr<KvLease> lease;
  };

  int32_t least_of(WorkerPrefixes::Hit hit, int32_t begin) const {
    return first_page_in_reach(begin * kPageTokens, 150) <= hit.columns ? worker_.prefixes.least_of(hit) : begin;
  }

  const ModelShape model_{.num_layers = 4, .windows = {150, 150, 0, 150}};
  KvPool pool_;
  Worker worker_;
  std::map<uint64_t, std::shared_ptr<KvLease>> kept_;
  std::vector<Attempt> attempts_;
  uint64_t last_ = 0, last_number_ = 0;
};

TEST(WorkerLedger, OfWindowsIsThatOfThePoolToThePage) {
  for (const int64_t pages : {100, 400}) {
    SeededRng rng(static_cast<uint64_t>(pages));
    Ledger ledger(pages);
    for (int step = 0; step < 20000; ++step) {
      const uint64_t what = rng.next() % 10;
      if (what < 2 || ledger.is_idle()) ledger.start(rng);
      else if (what < 4) ledger.keep_prompt(rng);
      else if (what < 9) ledger.go_on(rng);
      else ledger.end(rng);
      ledger.drop();
      if (HasFatalFailure()) return;
      ledger.expect_equal();
      if (HasFatalFailure()) FAIL() << pages << " pages, step " << step;
    }
    EXPECT_GT(ledger.behind, 200) << pages;
    EXPECT_GT(ledger.turned, 200) << pages;
    EXPECT_GT(ledger.waited, 200) << pages;
  }
}

}  // namespace
}  // namespace runahead
