#include "model/kv_pages.h"

#include <gtest/gtest.h>

#include <set>

namespace runahead {
namespace {

TEST(KvPages, LeasesAreDisjointZeroedAndReturned) {
  KvPool pool(100, 12);
  EXPECT_EQ(pool.page_bytes(), 128u);
  std::set<const std::byte*> seen;
  {
    auto a = *pool.lease(2, 65), b = *pool.lease(2, 128);  // 2 layers x 2 pages each
    for (const auto* lease : {a.get(), b.get()}) {
      ASSERT_EQ(lease->num_pages(), 2);
      for (int32_t layer = 0; layer < 2; ++layer) {
        for (int32_t p = 0; p < 2; ++p) {
          const std::span<std::byte> page = lease->page(layer, p);
          EXPECT_TRUE(seen.insert(page.data()).second);
          for (std::byte& byte : page) {
            ASSERT_EQ(byte, std::byte{0});
            byte = std::byte{0xFF};
          }
        }
      }
    }
    EXPECT_EQ(pool.usage().leased, 8);
    EXPECT_EQ(pool.usage().free, 4);
  }
  EXPECT_EQ(pool.usage().free, 12);
}

TEST(KvPages, ALeaseOfSomeLayersAtOnceTakesOnlyTheirMemory) {
  KvPool pool(64, 10);
  LeaseShape shape = whole_lease(7, 130);  // 3 pages a layer
  shape.layers_at_once = 3;
  auto lease = *pool.lease(shape);
  EXPECT_EQ(pool.usage().leased, 9);
  EXPECT_EQ(lease->num_layers(), 7);
  EXPECT_EQ(lease->layers_at_once(), 3);
  std::set<const std::byte*> seen;
  for (int32_t layer = 0; layer < 3; ++layer)
    for (int32_t page = 0; page < 3; ++page) EXPECT_TRUE(seen.insert(lease->page(layer, page).data()).second);
  for (int32_t layer = 3; layer < 7; ++layer) EXPECT_EQ(lease->page(layer, 1).data(), lease->page(layer - 3, 1).data());
  lease->mark_quarantined();
  EXPECT_EQ(pool.usage().quarantined, 9);
  lease.reset();
  EXPECT_EQ(pool.usage().free, 10);
}

TEST(KvPages, ALeaseBehindAKeptBeginningSharesItsPagesAndTakesTheOthers) {
  KvPool pool(64, 20);
  auto first = *pool.lease(2, 200);  // 4 pages a layer
  for (int32_t layer = 0; layer < 2; ++layer)
    for (int32_t page = 0; page < 4; ++page) first->page(layer, page)[0] = std::byte(10 * layer + page);
  first->mark_quarantined();
  auto kept = pool.share(*first, 3);
  EXPECT_EQ(kept->num_pages(), 3);
  EXPECT_EQ(pool.usage().leased, 6) << "nobody writes what is shared";
  EXPECT_EQ(pool.usage().quarantined, 2);
  first.reset();
  EXPECT_EQ(pool.usage().kept, 6);
  EXPECT_EQ(pool.usage().idle(), 20);
  {
    LeaseShape one_at_a_time = whole_lease(2, 300, /*shared=*/3);
    one_at_a_time.layers_at_once = 1;
    auto all_layers = *pool.lease_behind(kept, whole_lease(2, 200, /*shared=*/2));
    auto one_layer = *pool.lease_behind(kept, one_at_a_time);
    EXPECT_EQ(pool.usage().leased, 6 + 2 * 2 + 1 * 2);
    for (const auto* lease : {all_layers.get(), one_layer.get()})
      for (int32_t layer = 0; layer < 2; ++layer)
        for (int32_t page = 0; page < 2; ++page) {
          EXPECT_EQ(lease->page(layer, page).data(), kept->page(layer, page).data());
          EXPECT_EQ(lease->page(layer, page)[0], std::byte(10 * layer + page));
        }
    EXPECT_NE(all_layers->page(0, 2).data(), kept->page(0, 2).data());
    EXPECT_NE(all_layers->page(0, 3).data(), all_layers->page(1, 3).data());
    EXPECT_EQ(one_layer->page(1, 2).data(), kept->page(1, 2).data());
    EXPECT_EQ(one_layer->page(0, 4).data(), one_layer->page(1, 4).data()) << "its own are of one layer at a time";
    all_layers->mark_quarantined();
    EXPECT_EQ(pool.usage().quarantined, 4) << "its own";
    kept.reset();
    EXPECT_EQ(pool.usage().leased, 6 + 2) << "who reads them has them";
    const auto refused = pool.lease_behind(all_layers, whole_lease(2, 64 * 10, /*shared=*/2));
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code, ErrorCode::kOverloaded);
  }
  EXPECT_EQ(pool.usage().free, 20);
}

// An order drops what it begins with: what it does not read of it is free for the rest.
TEST(KvPages, ABeginningThatNobodyKeepsGivesWhatIsBehindIt) {
  KvPool pool(64, 10);
  auto kept = pool.share(**pool.lease(2, 320), 5);
  EXPECT_EQ(pool.usage().kept, 10);
  const auto lease = pool.lease_behind(std::move(kept), whole_lease(2, 320, /*shared=*/2));
  ASSERT_TRUE(lease) << lease.error().message;
  EXPECT_EQ(pool.usage().leased, 10);
}

TEST(KvPages, AFullPoolRefusesAndNamesTheNumbers) {
  KvPool pool(64, 5);
  auto a = *pool.lease(1, 64 * 3);
  const auto b = pool.lease(1, 64 * 3);
  ASSERT_FALSE(b.has_value());
  EXPECT_EQ(b.error().code, ErrorCode::kOverloaded);
  EXPECT_NE(b.error().message.find("3 pages"), std::string::npos);
  EXPECT_EQ(pool.usage().free, 2);
}

TEST(KvPages, AQuarantinedLeaseIsCountedApartUntilItIsGone) {
  KvPool pool(64, 4);
  auto a = *pool.lease(1, 100);
  a->mark_quarantined();
  a->mark_quarantined();
  EXPECT_EQ(pool.usage().quarantined, 2);
  EXPECT_EQ(pool.usage().leased, 0);
  EXPECT_EQ(pool.usage().free, 2);
  a.reset();
  EXPECT_EQ(pool.usage().quarantined, 0);
  EXPECT_EQ(pool.usage().free, 4);
}

}  // namespace
}  // namespace runahead
