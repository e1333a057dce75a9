#include "services/gateway/files_routes.h"

#include <algorithm>

#include "base/json_text.h"
#include "base/utf8.h"
#include "base/wall_clock.h"
#include "services/gateway/list_page.h"
#include "services/http/api_error.h"
#include "services/http/multipart.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr size_t kFilenameBytesMax = 255;  // of most file systems
constexpr size_t kFormBytes = 64 << 10;  // of a form around its file
constexpr size_t kSentBytes = 256 << 10;  // of a file, at once
constexpr size_t kFilesPage = 10'000, kBatchesPage = 20, kBatchesPageMax = 100;  // OpenAI's own

json file_json(const FileHead& file) {
  return {{"id", file.id},
          {"object", "file"},
          {"bytes", file.bytes},
          {"created_at", file.created_unix_ms / 1000},
          {"filename", file.filename},
          {"purpose", file.purpose},
          {"status", "processed"}};
}

struct Upload {
  std::string filename;
  std::string_view content;
};

Result<Upload> upload_of(std::string_view content_type, std::string_view body, size_t bytes_max) {
  const std::vector<FormPart> parts = TRY(parse_form(content_type, body));
  const FormPart* file = nullptr;
  const FormPart* purpose = nullptr;
  for (const FormPart& part : parts) {
    const FormPart** field = part.name == "file" ? &file : part.name == "purpose" ? &purpose : nullptr;
    const std::string name = printable_line(part.name, 64);
    if (field == nullptr)
      return fail(part.name.starts_with("expires_after") ? ErrorCode::kUnsupported : ErrorCode::kInvalidArgument,
                  "the form has '" + name + "', which is not taken; send file and purpose", name);
    if (*field != nullptr) return fail(ErrorCode::kInvalidArgument, "the form has " + name + " twice", name);
    *field = &part;
  }
  if (file == nullptr || !file->filename)
    return fail(ErrorCode::kInvalidArgument, "the form has no file; send one as 'file', with a filename", "file");
  if (purpose == nullptr || purpose->content != "batch")
    return fail(ErrorCode::kUnsupported, "the purpose must be batch", "purpose");
  if (file->content.empty()) return fail(ErrorCode::kInvalidArgument, "the file is empty", "file");
  if (file->content.size() > bytes_max)
    return fail(ErrorCode::kTooLarge, "the file is larger than " + std::to_string(bytes_max) + " bytes; send several",
                "file");
  if (file->filename->size() > kFilenameBytesMax)
    return fail(ErrorCode::kInvalidArgument, "the filename is longer than 255 bytes", "file");
  return Upload{valid_utf8(*file->filename), file->content};
}

Task<HttpReply> upload(const GatewayContext& context, FileStore& files, HttpRequest& http) {
  const auto body = std::make_shared<const std::string>(std::move(http.body));
  const std::string type(http.header("content-type"));
  const auto parse = [&] { return upload_of(type, *body, files.options().file_bytes_max); };
  auto parsed = co_await context.text_lane.render(body->size(), parse);
  const Upload sent = CO_TRY(parsed);
  FileHead head{.id = context.new_id("file-"), .owner = http.owner, .filename = sent.filename, .purpose = "batch"};
  head.created_unix_ms = unix_time_ms();
  auto added = co_await files.add(std::move(head), body, sent.content);
  const FileHead file = CO_TRY(added);
  co_return json_reply(file_json(file));
}

std::unexpected<Error> no_file(const std::string& id) {
  return fail(ErrorCode::kNotFound, "there is no file " + printable_line(id, 64), "file_id");
}

Task<HttpReply> list_files(const GatewayContext& context, const FileStore& files, std::string owner,
                           std::string query) {
  const std::vector<QueryParam> params = CO_TRY(parse_query(query));
  const ListPage page = CO_TRY(parse_list_page(params, kFilesPage, kFilesPage));
  std::vector<const FileHead*> found;
  for (const auto& [id, file] : files.files())
    if (files.find(owner, id) != nullptr && (page.purpose.empty() || page.purpose == file.purpose))
      found.push_back(&file);
  std::ranges::sort(found, [](const FileHead* a, const FileHead* b) {
    return std::pair(a->created_unix_ms, std::string_view(a->id)) >
           std::pair(b->created_unix_ms, std::string_view(b->id));
  });
  std::vector<json> rows;
  rows.reserve(found.size());
  for (const FileHead* file : found) rows.push_back(file_json(*file));
  constexpr size_t kRowBytes = 200;
  const auto write = [&]() -> Result<std::string> { return to_text(TRY(list_json(std::move(rows), page))); };
  auto written = co_await context.text_lane.render(found.size() * kRowBytes, write);
  HttpReply reply;
  reply.body = CO_TRY(written);
  co_return reply;
}

Task<HttpReply> show_file(const FileStore& files, std::string owner, std::string id) {
  const FileHead* file = files.find(owner, id);
  if (file == nullptr) co_return no_file(id);
  co_return json_reply(file_json(*file));
}

Task<HttpReply> delete_file(FileStore& files, const BatchService& batches, std::string owner, std::string id) {
  if (files.find(owner, id) == nullptr) co_return no_file(id);
  if (batches.reads(id))
    co_return fail(ErrorCode::kIncompatible, "a batch still reads this file; cancel it, or wait for its end",
                   "file_id");
  auto removed = co_await files.remove(id);
  CO_TRY(removed);
  const json body = {{"id", id}, {"object", "file"}, {"deleted", true}};
  co_return json_reply(body);
}

// What cannot be read any more once it has begun ends without its end, which clients notice.
asio::awaitable<void> send_content(FileStore& files, Exchange& exchange) {
  const std::string id = exchange.request().path_params.at("id");
  const bool known = files.find(exchange.request().owner, id) != nullptr;
  Result<void> whole;
  if (known) whole = co_await files.verify(id);
  if (!known || !whole) {
    const Error error = known ? whole.error() : no_file(id).error();
    HttpReply reply = error_reply(error);
    co_await exchange.respond(std::move(reply));
    co_return;
  }
  bool goes_on = co_await exchange.begin_stream("application/octet-stream");
  for (uint64_t offset = 0; goes_on;) {
    Result<std::string> piece = co_await files.read(id, offset, kSentBytes);
    if (!piece) co_return exchange.abort();
    offset += piece->size();
    const bool last = piece->size() < kSentBytes;
    goes_on = co_await exchange.write(std::move(*piece));
    if (!last) continue;
    if (goes_on) co_await exchange.end_stream();
    co_return;
  }
}

Task<HttpReply> create_batch(BatchService& batches, HttpRequest& http) {
  BatchRequest request = CO_TRY(parse_batch_request(http.body));
  auto created = co_await batches.create(http.owner, std::move(request));
  const BatchRecord record = CO_TRY(created);
  co_return json_reply(batch_json(record));
}

Task<HttpReply> list_batches(const GatewayContext& context, const BatchService& batches, std::string owner,
                             std::string query) {
  const std::vector<QueryParam> params = CO_TRY(parse_query(query));
  const ListPage page = CO_TRY(parse_list_page(params, kBatchesPage, kBatchesPageMax));
  std::vector<json> rows;
  for (const BatchRecord* record : batches.of(owner)) rows.push_back(batch_json(*record));
  constexpr size_t kRowBytes = 800;
  const auto write = [&]() -> Result<std::string> { return to_text(TRY(list_json(std::move(rows), page))); };
  auto written = co_await context.text_lane.render(rows.size() * kRowBytes, write);
  HttpReply reply;
  reply.body = CO_TRY(written);
  co_return reply;
}

Task<HttpReply> show_batch(const BatchService& batches, std::string owner, std::string id) {
  const BatchRecord* record = batches.find(owner, id);
  if (record == nullptr)
    co_return fail(ErrorCode::kNotFound, "there is no batch " + printable_line(id, 64), "batch_id");
  co_return json_reply(batch_json(*record));
}

Task<HttpReply> cancel_batch(BatchService& batches, std::string owner, std::string id) {
  auto cancelled = co_await batches.cancel(std::move(owner), std::move(id));
  const BatchRecord record = CO_TRY(cancelled);
  co_return json_reply(batch_json(record));
}

Task<HttpReply> no_files() {
  co_return fail(ErrorCode::kUnsupported, "this service keeps no files and no batches; start it with --job-store");
}

}  // namespace

void add_files_routes(HttpRouter& router, const GatewayContext& context, FileStore* files,
                      const BatchService* batches) {
  const HttpRouter::Rules list_rules{.query = {"purpose", "limit", "after", "order"}};
  if (files == nullptr) {
    const auto none = [](const HttpRequest&) { return no_files(); };
    router.answer("POST", "/v1/files", none, HttpRouter::Rules{.body = {.type = "multipart/form-data"}});
    router.answer("GET", "/v1/files", none, list_rules);
    for (const char* method : {"GET", "DELETE"}) router.answer(method, "/v1/files/{id}", none);
    router.answer("GET", "/v1/files/{id}/content", none);
    return;
  }
  const RequestBody form{.type = "multipart/form-data", .bytes_max = files->options().file_bytes_max + kFormBytes};
  router.answer(
      "POST", "/v1/files", [&context, files](HttpRequest& http) { return upload(context, *files, http); },
      HttpRouter::Rules{.body = form});
  router.answer(
      "GET", "/v1/files",
      [&context, files](const HttpRequest& http) { return list_files(context, *files, http.owner, http.query); },
      list_rules);
  router.answer("GET", "/v1/files/{id}",
                [files](const HttpRequest& http) { return show_file(*files, http.owner, http.path_params.at("id")); });
  router.answer("DELETE", "/v1/files/{id}", [files, batches](const HttpRequest& http) {
    return delete_file(*files, *batches, http.owner, http.path_params.at("id"));
  });
  router.add("GET", "/v1/files/{id}/content", [files](Exchange& exchange) { return send_content(*files, exchange); });
}

void add_batches_routes(HttpRouter& router, const GatewayContext& context, BatchService* batches) {
  const HttpRouter::Rules list_rules{.query = {"limit", "after"}};
  if (batches == nullptr) {
    const auto none = [](const HttpRequest&) { return no_files(); };
    router.answer("POST", "/v1/batches", none);
    router.answer("GET", "/v1/batches", none, list_rules);
    router.answer("GET", "/v1/batches/{id}", none);
    router.answer("POST", "/v1/batches/{id}/cancel", none);
    return;
  }
  router.answer("POST", "/v1/batches", [batches](HttpRequest& http) { return create_batch(*batches, http); });
  router.answer(
      "GET", "/v1/batches",
      [&context, batches](const HttpRequest& http) { return list_batches(context, *batches, http.owner, http.query); },
      list_rules);
  router.answer("GET", "/v1/batches/{id}", [batches](const HttpRequest& http) {
    return show_batch(*batches, http.owner, http.path_params.at("id"));
  });
  router.answer("POST", "/v1/batches/{id}/cancel", [batches](const HttpRequest& http) {
    return cancel_batch(*batches, http.owner, http.path_params.at("id"));
  });
}

}  // namespace runahead
