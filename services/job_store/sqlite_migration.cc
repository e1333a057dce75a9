#include "services/job_store/sqlite_migration.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "services/job_store/sqlite_database.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr int kInternalOfVersion1 = 17;  // the last one of its ErrorCode

std::string text(sqlite3_stmt* statement, int column) {
  const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(statement, column));
  return bytes == nullptr ? "" : std::string(bytes, static_cast<size_t>(sqlite3_column_bytes(statement, column)));
}

json object_of(const std::string& text) {
  json parsed = json::parse(text, nullptr, false);
  return parsed.is_object() ? std::move(parsed) : json::object();
}

std::string string_of(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

int32_t length_of(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_array() ? static_cast<int32_t>(found->size()) : 0;
}

std::optional<Error> error_of(const json& result) {
  const auto found = result.find("error");
  if (found == result.end() || !found->is_object()) return {};
  const auto code = found->find("code");
  const int number = code != found->end() && code->is_number_integer() ? code->get<int>() : kInternalOfVersion1;
  const bool known = number >= 0 && number < kInternalOfVersion1;
  return Error{known ? static_cast<ErrorCode>(number) : ErrorCode::kInternal, string_of(*found, "message"),
               string_of(*found, "param")};
}

}  // namespace

Result<void> migrate_version_1(SqliteDatabase& database) {
  const int64_t epoch = TRY(database.integer("SELECT coalesce(max(value), 0) FROM meta_1 WHERE key = 'epoch'"));
  TRY(database.set_epoch(static_cast<uint64_t>(std::max<int64_t>(epoch, 0))));
  auto rows =
      TRY(database.prepare("SELECT sequence, id, idempotency_key, status, created_unix_ms, ended_unix_ms, "
                           "request_json, result_json FROM jobs_1 ORDER BY sequence"));
  int code = SQLITE_ROW;
  while ((code = sqlite3_step(rows.get())) == SQLITE_ROW) {
    sqlite3_stmt* const row = rows.get();
    JobHead head{.id = text(row, 1), .idempotency_key = text(row, 2)};
    head.status = static_cast<JobStatus>(std::clamp(sqlite3_column_int(row, 3), 0, 4));
    head.created_unix_ms = sqlite3_column_int64(row, 4);
    head.ended_unix_ms = sqlite3_column_int64(row, 5);
    const std::string request_text = text(row, 6), result_text = text(row, 7);
    const json request = object_of(request_text), result = object_of(result_text);
    const std::string client = string_of(request, "client");
    const json client_object = object_of(client);
    head.kind = client_object.contains("chat") && client_object["chat"] == true ? "chat" : "completions";
    head.prompt_tokens = length_of(request, "prompt");
    head.completion_tokens = length_of(result, "tokens");
    if (head.status == JobStatus::kFailed)
      head.error = error_of(result).value_or(Error{ErrorCode::kInternal, "it is not known why", ""});
    TRY(database.insert(head, client, request_text, result_text, sqlite3_column_int64(row, 0)));
  }
  if (code != SQLITE_DONE) return database.failed(code);
  rows.reset();
  return database.execute("DROP TABLE jobs_1; DROP TABLE meta_1;");
}

}  // namespace runahead
