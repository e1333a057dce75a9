#include "model/weights/packed_cache.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "model/transformer/prefill.h"
#include "model/transformer/transformer.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace runahead::test {
namespace {

namespace fs = std::filesystem;

struct Outcome {
  WeightsOrigin origin = WeightsOrigin::kPacked;
  std::vector<float> logits;
};

// The logits after a few tokens, and where the weights came from.
Outcome run_model(const fs::path& model, const fs::path& cache) {
  auto engine = Transformer::load(
      {.model = model, .compute = ComputeMode::kInt16, .threads = 2, .progress = {}, .packed_cache = cache});
  RUNAHEAD_CHECK(engine.has_value(), "the model does not load");
  const std::vector<TokenId> tokens = {1, 2, 3, 4, 5};
  SequenceCache pages(**engine, 64);
  auto kv = *pages.lease(64);
  const std::unique_ptr<Hidden> x = run_layers(**engine, *kv, tokens);
  Outcome run{.origin = (*engine)->weights_origin()};
  run.logits.resize(tokens.size() * static_cast<size_t>((*engine)->shape().vocab_size));
  (*engine)->logits_of_rows(*x, 0, static_cast<int32_t>(tokens.size()), run.logits);
  return run;
}

bool same_bits(const Outcome& a, const Outcome& b) {
  return a.logits.size() == b.logits.size() &&
         std::memcmp(a.logits.data(), b.logits.data(), a.logits.size() * sizeof(float)) == 0;
}

class PackedCacheTest : public ::testing::Test {
 protected:
  void SetUp() override { write_tiny_llama(model_, 7, {}, QuantType::kQ4_1); }
  fs::path cache_file() const {
    for (const auto& entry : fs::directory_iterator(cache_))
      if (entry.path().extension() == ".panels") return entry.path();
    return {};
  }

  TempDir dir_;
  const fs::path model_ = dir_ / "tiny.gguf", cache_ = dir_ / "packed";
};

TEST_F(PackedCacheTest, TheSecondStartPacksNothingAndGivesTheSameBits) {
  const Outcome without = run_model(model_, {});
  const Outcome first = run_model(model_, cache_);
  const Outcome second = run_model(model_, cache_);
  EXPECT_EQ(without.origin, WeightsOrigin::kPacked);
  EXPECT_EQ(first.origin, WeightsOrigin::kWritten);
  EXPECT_EQ(second.origin, WeightsOrigin::kMapped);
  EXPECT_TRUE(same_bits(without, first));
  EXPECT_TRUE(same_bits(without, second));
}

TEST_F(PackedCacheTest, PaddedMatricesAreMappedAsTheyWerePacked) {
  for (const OddModel& odd : kOddModels) {
    write_odd_model(dir_ / odd.name, odd);
    const Outcome without = run_model(dir_ / odd.name, {});
    const Outcome first = run_model(dir_ / odd.name, cache_);
    const Outcome second = run_model(dir_ / odd.name, cache_);
    EXPECT_EQ(first.origin, WeightsOrigin::kWritten) << odd.name;
    EXPECT_EQ(second.origin, WeightsOrigin::kMapped) << odd.name;
    EXPECT_TRUE(same_bits(without, first) && same_bits(without, second)) << odd.name;
  }
}

TEST_F(PackedCacheTest, AnyDamagedByteOrLengthIsFoundAndThePanelsArePackedAnew) {
  const Outcome want = run_model(model_, cache_);
  const fs::path file = cache_file();
  const auto bytes = static_cast<int64_t>(fs::file_size(file));
  // In the magic, the version, the model's hash, the index, the first panels, the last panels.
  for (const int64_t at : {int64_t{0}, int64_t{8}, int64_t{20}, int64_t{100}, bytes / 2, bytes - 1}) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(at);
    const char byte = static_cast<char>(stream.get() ^ 1);
    stream.seekp(at);
    stream.put(byte);
    stream.close();
    const Outcome run = run_model(model_, cache_);
    EXPECT_EQ(run.origin, WeightsOrigin::kWritten) << "byte " << at;
    EXPECT_TRUE(same_bits(run, want)) << "byte " << at;
  }
  for (const int64_t size : {int64_t{1}, int64_t{71}, int64_t{200}, bytes - 1, bytes + 64}) {
    fs::resize_file(file, static_cast<uintmax_t>(size));
    EXPECT_EQ(run_model(model_, cache_).origin, WeightsOrigin::kWritten) << size << " bytes";
  }
  EXPECT_EQ(run_model(model_, cache_).origin, WeightsOrigin::kMapped);
}

TEST_F(PackedCacheTest, WithoutAPlaceToWriteItGoesOnInMemory) {
  const fs::path blocked = dir_ / "blocked";  // a file where the folder should be: refused to root as well
  std::ofstream(blocked) << "x";
  const Outcome run = run_model(model_, blocked / "packed");
  EXPECT_EQ(run.origin, WeightsOrigin::kPacked);
  EXPECT_TRUE(same_bits(run, run_model(model_, {})));
}

TEST_F(PackedCacheTest, OfProcessesThatStartAtOnceOnePacksAndTheOthersMap) {
  constexpr int kProcesses = 4;
  std::vector<pid_t> children;
  for (int i = 0; i < kProcesses; ++i) {
    const pid_t child = fork();
    if (child == 0) _exit(static_cast<int>(run_model(model_, cache_).origin));
    children.push_back(child);
  }
  int written = 0, mapped = 0;
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status));
    written += WEXITSTATUS(status) == static_cast<int>(WeightsOrigin::kWritten);
    mapped += WEXITSTATUS(status) == static_cast<int>(WeightsOrigin::kMapped);
  }
  EXPECT_EQ(written, 1);
  EXPECT_EQ(mapped, kProcesses - 1);
}

TEST_F(PackedCacheTest, OlderLayoutsAndUnfinishedFilesAreRemovedAndOtherFilesStay) {
  fs::create_directories(cache_);
  const std::string other_model(32, 'a');
  const fs::path older = cache_ / (other_model + "-v0.panels"), newer = cache_ / (other_model + "-v999.panels"),
                 foreign = cache_ / "notes.txt";
  for (const fs::path& path : {older, newer, foreign}) std::ofstream(path) << "x";
  run_model(model_, cache_);
  EXPECT_FALSE(fs::exists(older));
  EXPECT_TRUE(fs::exists(newer));
  EXPECT_TRUE(fs::exists(foreign));
}

// What others do to the files of a live engine: the file is written to in place, or cut. They do it in a process of their
// own, as a lease asks it of them.
class LiveEngineTest : public PackedCacheTest {
 protected:
  enum class Act { kFlip, kCut };

  void SetUp() override {
    PackedCacheTest::SetUp();
    run_model(model_, cache_);  // the file is there
    engine_ =
        *Transformer::load({.model = model_, .compute = ComputeMode::kInt16, .threads = 2, .packed_cache = cache_});
    ASSERT_EQ(engine_->weights_origin(), WeightsOrigin::kMapped);
    want_ = logits();
  }
  std::vector<float> logits() {
    const std::vector<TokenId> tokens = {1, 2, 3, 4, 5};
    SequenceCache pages(*engine_, 64);
    auto kv = *pages.lease(64);
    const std::unique_ptr<Hidden> x = run_layers(*engine_, *kv, tokens);
    std::vector<float> out(tokens.size() * static_cast<size_t>(engine_->shape().vocab_size));
    engine_->logits_of_rows(*x, 0, static_cast<int32_t>(tokens.size()), out);
    return out;
  }
  static void act(const fs::path& file, Act what) {
    const auto bytes = static_cast<off_t>(fs::file_size(file));
    const pid_t child = fork();
    if (child == 0) {
      if (what == Act::kCut) _exit(truncate(file.c_str(), 100) == 0 ? 0 : 1);
      const int fd = ::open(file.c_str(), O_RDWR);
      const std::vector<char> rubbish(static_cast<size_t>(bytes - 200), '\x5a');
      _exit(fd >= 0 && pwrite(fd, rubbish.data(), rubbish.size(), 200) == std::ssize(rubbish) ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0) << "the writer is held back, not refused";
  }
  void expect_same_bits() {
    const std::vector<float> now = logits();
    EXPECT_EQ(std::memcmp(now.data(), want_.data(), want_.size() * sizeof(float)), 0);
  }

  std::unique_ptr<Transformer> engine_;
  std::vector<float> want_;
};

TEST_F(LiveEngineTest, ItsPackedWeightsMayBeWrittenOverOrCutAndItsTokensStay) {
  for (const Act what : {Act::kFlip, Act::kCut}) {
    act(cache_file(), what);
    expect_same_bits();
  }
  EXPECT_EQ(run_model(model_, cache_).origin, WeightsOrigin::kWritten) << "the next start finds the damage";
}

TEST_F(LiveEngineTest, SoMayItsModelFile) {
  for (const Act what : {Act::kFlip, Act::kCut}) {
    act(model_, what);
    expect_same_bits();
  }
}

TEST_F(LiveEngineTest, WhereAWriterIsThereBeforeItTheEngineHasACopyFromTheStart) {
  engine_.reset();
  const fs::path file = cache_file();
  const int writer = ::open(file.c_str(), O_RDWR);  // no lease beside it
  ASSERT_GE(writer, 0);
  engine_ = *Transformer::load({.model = model_, .compute = ComputeMode::kInt16, .threads = 2, .packed_cache = cache_});
  ASSERT_EQ(engine_->weights_origin(), WeightsOrigin::kMapped);
  const std::vector<char> rubbish(fs::file_size(file), '\x5a');
  ASSERT_EQ(pwrite(writer, rubbish.data(), rubbish.size(), 0), std::ssize(rubbish));
  expect_same_bits();
  ASSERT_EQ(ftruncate(writer, 0), 0);
  expect_same_bits();
  close(writer);
}

}  // namespace
}  // namespace runahead::test
