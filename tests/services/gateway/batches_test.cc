// /v1/files and /v1/batches where a crash or time has left them: over a folder as it was found, the real JobService and a
// store in memory.
#include <fstream>

#include "actors/jobs/job_service.h"
#include "base/crc32c.h"
#include "base/wall_clock.h"
#include "services/file_store/file_store.h"
#include "services/gateway/batch_lines.h"
#include "services/gateway/jobs_routes.h"
#include "services/job_store/sqlite_job_store.h"
#include "tests/services/gateway/gateway_fixture.h"
#include "tests/support/temp_dir.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr const char* kInput = "file-111111111111111111111111";
constexpr const char* kOutput = "file-222222222222222222222222";
constexpr const char* kErrors = "file-333333333333333333333333";
constexpr const char* kBatch = "batch_444444444444444444444444";

std::string line(int number) {
  return R"({"custom_id":"id-)" + std::to_string(number) +
         R"(","method":"POST","url":"/v1/completions","body":{"prompt":"a","max_tokens":5}})" + "\n";
}

// As a batch of three lines is stored when it runs.
BatchRecord running() {
  BatchRecord record{.id = kBatch, .endpoint = Endpoint::kCompletions};
  record.input_file_id = kInput;
  record.output_file_id = kOutput;
  record.error_file_id = kErrors;
  record.enter(BatchStatus::kValidating, unix_time_ms());
  record.enter(BatchStatus::kInProgress, unix_time_ms());
  record.expires_unix_ms = unix_time_ms() + 100'000;
  record.counts.total = 3;
  return record;
}

class BatchesTest : public GatewayTest {
 protected:
  void SetUp() override {
    const std::string input = line(1) + line(2) + line(3);
    ASSERT_TRUE(folder_.write(kInput, input));
    put_head(kInput, "batch", input);
  }
  void TearDown() override {
    if (thread_.joinable()) asio::co_spawn(io_, service_->stop(), asio::use_future).get();
    stop();
    service_.reset();
  }
  JobsApi* jobs() override { return service_.get(); }

  void put_head(const std::string& id, const std::string& purpose, std::string_view bytes) {
    const uint32_t check = crc32c(std::as_bytes(std::span(bytes.data(), bytes.size())));
    const json head = {{"owner", ""},    {"filename", "x.jsonl"}, {"purpose", purpose},
                       {"check", check}, {"bytes", bytes.size()}, {"created_unix_ms", 1000}};
    ASSERT_TRUE(folder_.put_json(id, head.dump()));
  }
  std::string done(int number) const {
    return result_line(running(), number, "id-" + std::to_string(number), response_json(200, "job-x", "{\"old\":true}"),
                       {});
  }
  void restart() {
    FileStoreOptions options;
    options.folder = dir_ / "";
    files_ = std::move(*FileStore::open(options));
    options_.files = files_.get();
    store_ = std::move(*SqliteJobStore::open(""));
    service_ = std::make_unique<JobService>(
        JobServiceEnv{io_.get_executor(), clock_, rng_, inference_, *store_, [] { return int64_t{5000}; }, {}});
    start();
    asio::post(io_, [this] { gateway_->resume_batches(); });
  }
  void restart_with(const BatchRecord& record) {
    ASSERT_TRUE(folder_.put_json(kBatch, stored(record)));
    restart();
  }
  json ended() {
    json batch;
    EXPECT_TRUE(eventually([&] {
      batch = get(std::string("/v1/batches/") + kBatch).json();
      const std::string status = batch.value("status", "");
      return status == "completed" || status == "failed" || status == "expired" || status == "cancelled";
    })) << batch;
    return batch;
  }
  std::vector<json> lines_of(const json& file_id) {
    std::vector<json> lines;
    if (!file_id.is_string()) return lines;
    std::istringstream text(get("/v1/files/" + file_id.get<std::string>() + "/content").body);
    for (std::string line; std::getline(text, line);) lines.push_back(json::parse(line));
    return lines;
  }

  test::TempDir dir_;
  FileFolder folder_{dir_ / ""};
  SeededRng rng_{1};
  std::unique_ptr<FileStore> files_;
  std::unique_ptr<SqliteJobStore> store_;
  std::unique_ptr<JobService> service_;
};

TEST_F(BatchesTest, LinesThatAreDoneStayAndATornOneRunsAgain) {
  ASSERT_TRUE(folder_.append(kOutput, done(2) + done(1).substr(0, 40)));
  restart_with(running());
  const json batch = ended();
  EXPECT_EQ(batch["status"], "completed") << batch;
  EXPECT_EQ(batch["request_counts"], (json{{"total", 3}, {"completed", 3}, {"failed", 0}}));
  std::map<std::string, bool> old;
  for (const json& line : lines_of(batch["output_file_id"]))
    EXPECT_TRUE(old.emplace(line["custom_id"], line["response"]["body"].contains("old")).second) << "once";
  EXPECT_EQ(old, (std::map<std::string, bool>{{"id-1", false}, {"id-2", true}, {"id-3", false}}));
  EXPECT_EQ(inference_.requests().size(), 2u) << "a line that is done does not run";
  EXPECT_EQ(metrics_.lines_completed, 2) << "since the start";
  EXPECT_EQ(metrics_.open, 0);
}

class BatchesEndTest : public BatchesTest, public ::testing::WithParamInterface<int> {};

// Before the output file was finished; before it was known; before the batch was.
INSTANTIATE_TEST_SUITE_P(Crash, BatchesEndTest, ::testing::Values(0, 1, 2));

TEST_P(BatchesEndTest, IsMadeWholeWhereACrashHasCutItShort) {
  BatchRecord record = running();
  record.enter(BatchStatus::kFinalizing, unix_time_ms());
  record.ending = BatchStatus::kCompleted;
  record.counts = {3, 3, 0};
  const std::string output = done(1) + done(2) + done(3);
  ASSERT_TRUE(folder_.append(kOutput, output));
  if (GetParam() > 0) {
    ASSERT_TRUE(folder_.finish_part(kOutput));
  }
  if (GetParam() > 1) put_head(kOutput, "batch_output", output);
  restart_with(record);
  const json batch = ended();
  EXPECT_EQ(batch["status"], "completed") << batch;
  EXPECT_EQ(lines_of(batch["output_file_id"]).size(), 3u);
  EXPECT_EQ(inference_.requests().size(), 0u);
}

TEST_F(BatchesTest, AClosedWindowEndsWhatHasNotRun) {
  ASSERT_TRUE(folder_.append(kOutput, done(1)));
  BatchRecord record = running();
  record.expires_unix_ms = unix_time_ms() - 1;
  restart_with(record);
  const json batch = ended();
  EXPECT_EQ(batch["status"], "expired") << batch;
  EXPECT_EQ(batch["request_counts"], (json{{"total", 3}, {"completed", 1}, {"failed", 2}}));
  EXPECT_EQ(lines_of(batch["output_file_id"]).size(), 1u);
  const std::vector<json> errors = lines_of(batch["error_file_id"]);
  ASSERT_EQ(errors.size(), 2u);
  EXPECT_EQ(errors[0]["error"]["code"], "batch_expired");
  EXPECT_TRUE(errors[0]["response"].is_null());
  EXPECT_EQ(inference_.requests().size(), 0u);
}

TEST_F(BatchesTest, ADamagedInputFailsItsBatchAndIsNotGivenOut) {
  std::fstream file(dir_ / (std::string(kInput) + ".data"), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(20);
  file.put('!');
  file.close();
  restart_with(running());
  const json batch = ended();
  EXPECT_EQ(batch["status"], "failed");
  EXPECT_EQ(batch["errors"]["data"][0]["code"], "corrupt") << batch;
  const RawAnswer content = get(std::string("/v1/files/") + kInput + "/content");
  EXPECT_EQ(content.status, 500);
  EXPECT_EQ(inference_.requests().size(), 0u);
}

TEST_F(BatchesTest, WhatACrashLeavesHalfWrittenGoesAndDamageIsSaid) {
  std::ofstream(dir_ / "file-orphan.data") << "never acknowledged";
  std::ofstream(dir_ / "file-orphan.part") << "of no batch";
  std::ofstream(dir_ / "file-new.data.new") << "half";
  std::ofstream(dir_ / "file-gone.json") << "0badc0de\n{}";
  put_head("file-empty", "batch", "no data");
  std::ofstream(dir_ / "notes.txt") << "somebody else's";
  restart();
  ASSERT_EQ(files_->damage().size(), 2u);
  EXPECT_EQ(get("/v1/files").json()["data"].size(), 1u) << "the input";
  const auto left = [&] {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(dir_ / "")) names.insert(entry.path().filename());
    return names;
  };
  const std::set<std::string> expected = {".lock",     "file-empty.damaged",          "file-gone.damaged",
                                          "notes.txt", std::string(kInput) + ".data", std::string(kInput) + ".json"};
  EXPECT_TRUE(eventually([&] { return left() == expected; })) << json(left());
}

TEST_F(BatchesTest, AFolderThatIsInUseOrCannotBeMadeIsRefused) {
  restart();
  FileStoreOptions options;
  options.folder = dir_ / "";
  EXPECT_EQ(FileStore::open(options).error().code, ErrorCode::kInvalidConfig);
  options.folder = "/proc/none";
  EXPECT_EQ(FileStore::open(options).error().code, ErrorCode::kInvalidConfig);
}

TEST_F(BatchesTest, WorkThatHasNoRoomWaitsAndRunsThen) {
  Script script;
  script.refuse = Error{ErrorCode::kOverloaded, "full", ""};
  inference_.set(script);
  restart_with(running());
  EXPECT_TRUE(eventually([&] { return get("/v1/jobs").json()["data"].size() == 3; })) << "accepted, and waiting";
  EXPECT_EQ(get(std::string("/v1/batches/") + kBatch).json()["request_counts"]["failed"], 0);
  inference_.set({});
  EXPECT_EQ(ended()["request_counts"]["completed"], 3);
}

TEST(BatchInput, LinesAreFoundInPiecesOfAnySize) {
  const std::string text = "\n" + line(1) + "  \r\n" + line(2) + line(3).substr(0, line(3).size() - 1);
  for (const size_t piece : {1, 7, 64, 4096}) {
    BatchInput input(Endpoint::kCompletions, {});
    std::string waiting;
    for (size_t at = 0; at < text.size(); at += piece) {
      waiting += text.substr(at, piece);
      waiting.erase(0, input.push(waiting, at + piece >= text.size()));
    }
    input.finish();
    ASSERT_EQ(input.lines().size(), 3u) << piece;
    EXPECT_TRUE(input.faults().empty());
    EXPECT_EQ(input.lines()[1].number, 4);
    for (int i = 0; i < 3; ++i) {
      const BatchLine& at = input.lines()[static_cast<size_t>(i)];
      EXPECT_EQ(read_batch_line(text.substr(at.offset, at.bytes))->custom_id, "id-" + std::to_string(i + 1));
    }
  }
}

}  // namespace
}  // namespace runahead
