// The lines of a batch: of its input, as JSON Lines, and of its output and error files, in OpenAI's form.
//   threads  pure; any.
//   limits   kBatchLinesMax lines of at most kJsonBodyBytesMax.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "services/gateway/batch_record.h"

namespace runahead {

inline constexpr int64_t kBatchLinesMax = 50'000;  // OpenAI's own bound
inline constexpr size_t kBatchFaultsMax = 50;  // that are named; a wrong file has one for each line
inline constexpr size_t kCustomIdBytesMax = 512;

// Where a line is in the input file. Empty ones are none.
struct BatchLine {
  int64_t number = 0;  // from 1, empty lines counted
  uint64_t offset = 0;
  uint32_t bytes = 0;
};

// Takes the bytes of an input file piece by piece, and says where its lines are and what is wrong with them.
class BatchInput {
 public:
  BatchInput(Endpoint endpoint, ServedModel model) : endpoint_(endpoint), model_(std::move(model)) {}

  // The bytes behind those that were given before. Gives how many of them were taken: whole lines, and all if they are the last.
  size_t push(std::string_view bytes, bool last);
  // Once, after the last ones.
  void finish();

  std::vector<BatchLine>& lines() { return lines_; }
  std::vector<BatchFault>& faults() { return faults_; }
  bool is_hopeless() const { return faults_.size() >= kBatchFaultsMax; }

 private:
  void take(std::string_view line, uint64_t offset);
  void fault(std::string code, std::string message, std::string param);

  Endpoint endpoint_;
  ServedModel model_;
  uint64_t offset_ = 0;
  int64_t number_ = 0;
  std::vector<BatchLine> lines_;
  std::vector<BatchFault> faults_;
  std::set<std::string> custom_ids_;
};

// Of a line that was found right.
struct BatchLineRequest {
  std::string custom_id;
  std::string body;  // its JSON, keys in their order
};
Result<BatchLineRequest> read_batch_line(std::string_view text);

// "batch_req_" and the batch's digits, "_" and the line's number: what a line of an output or error file begins with, so that
// the lines that are done are known without reading what they hold.
std::string result_line(const BatchRecord& batch, int64_t number, const std::string& custom_id,
                        const std::string& response_json, const std::optional<Error>& error);
std::optional<int64_t> number_of_result(const BatchRecord& batch, std::string_view line);
inline constexpr size_t kResultPrefixBytes = 96;  // enough for number_of_result()

// {"status_code", "request_id", "body"}.
std::string response_json(int status, const std::string& request_id, const std::string& body);

}  // namespace runahead
