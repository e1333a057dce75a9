#include "services/gateway/batch_lines.h"

#include <algorithm>
#include <charconv>

#include "base/json_text.h"
#include "base/limits.h"
#include "services/gateway/request/json_reader.h"

namespace runahead {
namespace {

using nlohmann::json;

std::string result_prefix(const BatchRecord& batch) {
  return "{\"id\":\"batch_req_" + batch.id.substr(batch.id.find('_') + 1) + "_";
}

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r") == std::string_view::npos; }

}  // namespace

void BatchInput::fault(std::string code, std::string message, std::string param) {
  if (!is_hopeless()) faults_.push_back({std::move(code), std::move(message), std::move(param), number_});
}

size_t BatchInput::push(std::string_view bytes, bool last) {
  size_t taken = 0;
  while (taken < bytes.size() && !is_hopeless()) {
    const size_t end = bytes.find('\n', taken);
    if (end == std::string_view::npos && !last) break;
    const std::string_view line = bytes.substr(taken, std::min(end, bytes.size()) - taken);
    ++number_;
    if (!is_blank(line)) take(line, offset_ + taken);
    taken = std::min(end, bytes.size() - 1) + 1;
  }
  offset_ += taken;
  return taken;
}

void BatchInput::finish() {
  number_ = 0;
  if (lines_.empty() && faults_.empty()) fault("empty_file", "the input file has no lines", "input_file_id");
}

void BatchInput::take(std::string_view line, uint64_t offset) {
  if (std::ssize(lines_) == kBatchLinesMax && faults_.empty())
    return fault("too_many_lines", "a batch has at most 50,000 lines; make several", "input_file_id");
  lines_.push_back({number_, offset, static_cast<uint32_t>(line.size())});
  const Result<ParsedJson> parsed = parse_json_object(line);
  if (!parsed) return fault("invalid_json_line", parsed.error().message, "");
  std::optional<Error> error;
  JsonReader reader(*parsed, "", error);
  const auto custom_id = reader.string("custom_id", kCustomIdBytesMax);
  if (!custom_id || custom_id->empty())
    reader.error("custom_id", "is missing; give each line one, its answer carries it");
  const auto method = reader.string("method", kCustomIdBytesMax);
  const auto url = reader.string("url", kCustomIdBytesMax);
  const json* body = reader.object("body");
  if (!method || !url || body == nullptr)
    reader.error(!method ? "method" : !url ? "url" : "body", "is missing; a line has custom_id, method, url and body");
  reader.finish();
  if (error) return fault("invalid_line", error->message, error->param);
  if (*method != "POST") return fault("invalid_method", "the method must be POST", "method");
  if (*url != path_of(endpoint_))
    return fault("mismatched_url", "the url must be the batch's endpoint, " + path_of(endpoint_), "url");
  if (!custom_ids_.insert(*custom_id).second)
    return fault("duplicate_custom_id", "another line has this custom_id; each needs its own", "custom_id");
  const auto model = body->find("model");
  const bool names_another = model != body->end() && !model->is_null() &&
                             (!model->is_string() || !model_.answers_to(model->get<std::string>()));
  if (names_another) fault("model_not_found", "this service has another model; GET /v1/models names it", "body.model");
}

Result<BatchLineRequest> read_batch_line(std::string_view text) {
  BatchLineRequest request;
  {
    const ParsedJson parsed = TRY(parse_json_object(text));
    request.custom_id = parsed.value().at("custom_id").get<std::string>();
  }
  const nlohmann::ordered_json ordered = parse_in_order(text);
  request.body = to_ordered_text(ordered.at("body"));
  return request;
}

std::string response_json(int status, const std::string& request_id, const std::string& body) {
  return "{\"status_code\":" + std::to_string(status) + ",\"request_id\":" + to_text(json(request_id)) +
         ",\"body\":" + body + "}";
}

std::string result_line(const BatchRecord& batch, int64_t number, const std::string& custom_id,
                        const std::string& response_json, const std::optional<Error>& error) {
  json why = nullptr;
  if (error) why = {{"code", error->param}, {"message", error->message}};
  return result_prefix(batch) + std::to_string(number) + "\",\"custom_id\":" + to_text(json(custom_id)) +
         ",\"response\":" + (response_json.empty() ? "null" : response_json) + ",\"error\":" + to_text(why) + "}\n";
}

std::optional<int64_t> number_of_result(const BatchRecord& batch, std::string_view line) {
  const std::string prefix = result_prefix(batch);
  if (!line.starts_with(prefix)) return {};
  line.remove_prefix(prefix.size());
  int64_t number = 0;
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), number);
  if (error != std::errc() || number < 1 || !line.substr(static_cast<size_t>(end - line.data())).starts_with("\","))
    return {};
  return number;
}

}  // namespace runahead
