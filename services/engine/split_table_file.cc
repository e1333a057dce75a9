#include "services/engine/split_table_file.h"

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>

#include "base/cache_file.h"
#include "base/json_text.h"
#include "base/limits.h"
#include "services/engine/model_path.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr size_t kFileBytesMax = 16 << 20;  // a search of 100 lengths with 1,000 measurements each is a tenth of it

std::unexpected<Error> bad_file(const std::string& what) {
  return fail(ErrorCode::kInvalidArgument, "the file of searched cuts is not valid: " + what + "; search again",
              "split-table");
}

std::optional<int32_t> token_count(const json& from) {
  if (!from.is_number_integer()) return std::nullopt;
  const auto tokens = from.get<int64_t>();
  if (tokens < 1 || tokens > INT32_MAX) return std::nullopt;
  return static_cast<int32_t>(tokens);
}

std::optional<double> positive(const json& from) {
  if (!from.is_number()) return std::nullopt;
  const auto number = from.get<double>();
  return std::isfinite(number) && number > 0 ? std::optional(number) : std::nullopt;
}

Result<SplitEntry> parse_entry(const json& from) {
  if (!from.is_object() || !from.contains("shares") || !from["shares"].is_array() ||
      from["shares"].size() > static_cast<size_t>(limits::kWorkersMax))
    return bad_file("an entry has no shares");
  const auto tokens = token_count(from.value("tokens", json()));
  const auto seconds = positive(from.value("ttft_seconds", json()));
  if (!tokens || !seconds) return bad_file("an entry has no tokens or no ttft_seconds");
  SplitEntry entry{.context_len = *tokens, .shares = {}, .ttft_seconds = *seconds};
  for (const json& share : from["shares"]) {
    const auto number = positive(share);
    if (!number) return bad_file("a share is no positive number");
    entry.shares.push_back(*number);
  }
  return entry;
}

Result<void> parse_measured(const json& from, SplitSearchFile& to) {
  if (!from.is_object() || !from.contains("cuts") || !from["cuts"].is_array() ||
      from["cuts"].size() >= static_cast<size_t>(limits::kWorkersMax))
    return bad_file("a measurement has no cuts");
  const auto tokens = token_count(from.value("tokens", json()));
  const auto seconds = positive(from.value("ttft_seconds", json()));
  if (!tokens || !seconds) return bad_file("a measurement has no tokens or no ttft_seconds");
  std::vector<int32_t> cuts;
  for (const json& cut : from["cuts"]) {
    const auto position = token_count(cut);
    if (!position) return bad_file("a cut is no position");
    cuts.push_back(*position);
  }
  to.measured[{*tokens, std::move(cuts)}] = *seconds;
  return {};
}

}  // namespace

std::filesystem::path default_split_table() { return cache_folder() / "split-table.json"; }

std::string encode_split_search(const SplitSearchFile& file) {
  json entries = json::array(), measured = json::array();
  for (const SplitEntry& entry : file.table.entries)
    entries.push_back({{"tokens", entry.context_len},
                       {"shares", entry.shares},
                       {"cuts", cuts_of(pages_of(entry.shares, entry.context_len))},
                       {"ttft_seconds", entry.ttft_seconds}});
  for (const auto& [what, seconds] : file.measured)
    measured.push_back({{"tokens", what.first}, {"cuts", what.second}, {"ttft_seconds", seconds}});
  return to_text({{"identity", file.table.identity}, {"entries", entries}, {"measured", measured}}, 1) + "\n";
}

Result<SplitSearchFile> parse_split_search(std::string_view text) {
  const json from = json::parse(text, nullptr, false);
  if (!from.is_object()) return bad_file("it is no JSON object");
  if (!from.contains("identity") || !from["identity"].is_string()) return bad_file("it does not say what it is of");
  SplitSearchFile file;
  file.table.identity = from["identity"];
  const json entries = from.value("entries", json::array()), measured = from.value("measured", json::array());
  if (!entries.is_array() || !measured.is_array()) return bad_file("entries or measured is no array");
  for (const json& entry : entries) file.table.entries.push_back(TRY(parse_entry(entry)));
  for (const json& one : measured) TRY(parse_measured(one, file));
  if (!file.table.entries.empty()) TRY(check_table(file.table));
  return file;
}

Result<SplitSearchFile> read_split_search(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in)
    return fail(ErrorCode::kNotFound,
                "there is no file of searched cuts at " + path.string() +
                    "; make one with "
                    "`runahead plan search`",
                "split-table");
  std::string text(kFileBytesMax + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  if (text.size() > kFileBytesMax) return bad_file("it is larger than 16 MiB");
  return parse_split_search(text);
}

Result<void> write_split_search(const std::filesystem::path& path, const SplitSearchFile& file) {
  const std::string text = encode_split_search(file);
  std::error_code ignored;  // the write says what is wrong
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), ignored);
  return write_whole_file(path, {std::as_bytes(std::span(text))});
}

Result<SplitTable> read_split_table(const std::filesystem::path& path) {
  SplitTable table = TRY(read_split_search(path)).table;
  TRY(check_table(table));
  return table;
}

}  // namespace runahead
