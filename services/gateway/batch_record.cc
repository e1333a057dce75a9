#include "services/gateway/batch_record.h"

#include <algorithm>

#include "base/json_text.h"
#include "services/gateway/api_time.h"
#include "services/gateway/request/json_reader.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr size_t kIdBytesMax = 64;
constexpr const char* kWindow = "24h";

json text_or_null(const std::string& text) { return text.empty() ? json(nullptr) : json(text); }

std::optional<BatchStatus> status_of(const std::string& text) {
  for (int status = 0; status <= static_cast<int>(BatchStatus::kCancelled); ++status)
    if (name(static_cast<BatchStatus>(status)) == text) return static_cast<BatchStatus>(status);
  return {};
}

json fault_json(const BatchFault& fault) {
  return {{"code", fault.code},
          {"message", fault.message},
          {"param", text_or_null(fault.param)},
          {"line", fault.line == 0 ? json(nullptr) : json(fault.line)}};
}

json errors_json(const BatchRecord& record) {
  if (record.faults.empty()) return nullptr;
  json data = json::array();
  for (const BatchFault& fault : record.faults) data.push_back(fault_json(fault));
  return {{"object", "list"}, {"data", std::move(data)}};
}

}  // namespace

std::string path_of(Endpoint endpoint) {
  return endpoint == Endpoint::kChat ? "/v1/chat/completions" : "/v1/completions";
}

std::string stored(const BatchRecord& record) {
  json faults = json::array();
  for (const BatchFault& fault : record.faults) faults.push_back({fault.code, fault.message, fault.param, fault.line});
  return to_text({{"owner", record.owner},
                  {"chat", record.endpoint == Endpoint::kChat},
                  {"input_file_id", record.input_file_id},
                  {"output_file_id", record.output_file_id},
                  {"error_file_id", record.error_file_id},
                  {"metadata", record.metadata},
                  {"status", name(record.status)},
                  {"ending", name(record.ending)},
                  {"at_unix_ms", record.at_unix_ms},
                  {"expires_unix_ms", record.expires_unix_ms},
                  {"counts", {record.counts.total, record.counts.completed, record.counts.failed}},
                  {"faults", std::move(faults)}});
}

// The store has compared its check: what is not as stored() writes it is of another version.
Result<BatchRecord> parse_stored_batch(std::string id, const std::string& text) try {
  const json stored = json::parse(text);
  const auto status = status_of(stored.at("status").get<std::string>());
  const auto ending = status_of(stored.at("ending").get<std::string>());
  if (!status || !ending) return fail(ErrorCode::kCorrupt, id + " has a status that this version does not know");
  BatchRecord record{.id = std::move(id), .owner = stored.at("owner").get<std::string>()};
  record.endpoint = stored.at("chat").get<bool>() ? Endpoint::kChat : Endpoint::kCompletions;
  stored.at("input_file_id").get_to(record.input_file_id);
  stored.at("output_file_id").get_to(record.output_file_id);
  stored.at("error_file_id").get_to(record.error_file_id);
  record.metadata = stored.at("metadata");
  record.status = *status;
  record.ending = *ending;
  stored.at("at_unix_ms").get_to(record.at_unix_ms);
  stored.at("expires_unix_ms").get_to(record.expires_unix_ms);
  const json& counts = stored.at("counts");
  record.counts = {counts.at(0).get<int64_t>(), counts.at(1).get<int64_t>(), counts.at(2).get<int64_t>()};
  for (const json& fault : stored.at("faults"))
    record.faults.push_back({fault.at(0).get<std::string>(), fault.at(1).get<std::string>(),
                             fault.at(2).get<std::string>(), fault.at(3).get<int64_t>()});
  return record;
} catch (const json::exception& thrown) {
  return fail(ErrorCode::kCorrupt, "the record of a batch cannot be read: " + std::string(thrown.what()));
}

json batch_json(const BatchRecord& record) {
  json body = {
      {"id", record.id},
      {"object", "batch"},
      {"endpoint", path_of(record.endpoint)},
      {"errors", errors_json(record)},
      {"input_file_id", record.input_file_id},
      {"completion_window", kWindow},
      {"status", name(record.status)},
      {"output_file_id", nullptr},
      {"error_file_id", nullptr},
      {"created_at", seconds_or_null(record.created_unix_ms())},
      {"expires_at", seconds_or_null(record.expires_unix_ms)},
      {"request_counts",
       {{"total", record.counts.total}, {"completed", record.counts.completed}, {"failed", record.counts.failed}}},
      {"metadata", record.metadata}};
  for (const BatchStatus status :
       {BatchStatus::kInProgress, BatchStatus::kFinalizing, BatchStatus::kCompleted, BatchStatus::kFailed,
        BatchStatus::kExpired, BatchStatus::kCancelling, BatchStatus::kCancelled})
    body[std::string(name(status)) + "_at"] = seconds_or_null(record.at_unix_ms[static_cast<size_t>(status)]);
  if (!has_ended(record.status)) return body;
  if (record.counts.completed > 0) body["output_file_id"] = text_or_null(record.output_file_id);
  if (record.counts.failed > 0) body["error_file_id"] = text_or_null(record.error_file_id);
  return body;
}

Result<BatchRequest> parse_batch_request(const std::string& body) {
  const ParsedJson parsed = TRY(parse_json_object(body));
  std::optional<Error> error;
  JsonReader reader(parsed, "", error);
  BatchRequest request;
  const auto file = reader.string("input_file_id", kIdBytesMax);
  if (!file) reader.error("input_file_id", "is missing; send the id of a file that was uploaded with purpose=batch");
  request.input_file_id = file.value_or("");
  const std::string endpoint = reader.string("endpoint", kIdBytesMax).value_or("");
  request.endpoint = endpoint == path_of(Endpoint::kChat) ? Endpoint::kChat : Endpoint::kCompletions;
  if (endpoint != path_of(request.endpoint))
    reader.error("endpoint", "must be /v1/chat/completions or /v1/completions");
  if (reader.string("completion_window", kIdBytesMax).value_or("") != kWindow)
    reader.error("completion_window", "must be 24h");
  request.metadata = take_metadata(reader);
  constexpr std::string_view kNotBuilt[] = {"output_expires_after"};
  reader.unsupported(kNotBuilt);
  reader.finish();
  if (error) return std::unexpected(std::move(*error));
  return request;
}

}  // namespace runahead
