#include "services/engine/speed_memory_file.h"

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <span>

#include "base/cache_file.h"
#include "base/json_text.h"
#include "base/limits.h"
#include "base/log.h"
#include "services/engine/kernel_timings.h"
#include "services/engine/model_path.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr double kSecondsMax = limits::kReportedSecondsMax;
constexpr double kBytesPerSecondMin = 1, kBytesPerSecondMax = 1e15;

// A number of [low, high]; nothing if it is none.
std::optional<double> number(const json& from, const char* key, double low, double high) {
  const auto found = from.find(key);
  if (found == from.end() || !found->is_number()) return std::nullopt;
  const auto value = found->get<double>();
  return value >= low && value <= high ? std::optional(value) : std::nullopt;
}

std::optional<LearntSpeeds> parse_speeds(const json& from) {
  if (!from.is_object()) return std::nullopt;
  const auto token = number(from, "seconds_per_token", limits::kSecondsPerTokenMin, limits::kSecondsPerTokenMax);
  const auto pair = number(from, "seconds_per_pair", 0, limits::kSecondsPerPairMax);
  const auto chunk = number(from, "seconds_per_chunk", 0, kSecondsMax);
  const auto prefix = number(from, "seconds_per_prefix_token", 0, kSecondsMax);
  if (!token || !pair || !chunk || !prefix) return std::nullopt;
  LearntSpeeds speeds{.speed = {*token, *pair, *chunk, *prefix}, .link_bytes_per_second = {}};
  if (from.contains("link_bytes_per_second")) {
    const auto bytes = number(from, "link_bytes_per_second", kBytesPerSecondMin, kBytesPerSecondMax);
    if (!bytes) return std::nullopt;
    speeds.link_bytes_per_second = bytes;
  }
  return speeds;
}

}  // namespace

std::filesystem::path speed_memory_file() { return cache_folder() / "worker-speeds.json"; }

SpeedMemory read_speed_memory(const std::filesystem::path& path) {
  const std::string text = read_kept(path);
  if (text.empty()) return {};
  auto speeds = parse_speed_memory(text);
  if (!speeds) log::debug("{}: {}; it is made anew", path.string(), speeds.error().message);
  return speeds.value_or(SpeedMemory{});
}

void add_to_speed_memory(const std::filesystem::path& path, const SpeedMemory& speeds) {
  if (speeds.empty()) return;
  SpeedMemory all = read_speed_memory(path);
  for (const auto& [key, learnt] : speeds) all.insert_or_assign(key, learnt);
  while (all.size() > limits::kWorkersRememberedMax) all.erase(all.begin());
  const std::string text = encode_speed_memory(all);
  std::error_code ignored;  // the write says what is wrong
  std::filesystem::create_directories(path.parent_path(), ignored);
  if (const auto written = write_whole_file(path, {std::as_bytes(std::span(text))}); !written)
    log::debug("the workers' speeds are not kept: {}", written.error().message);
}

std::string encode_speed_memory(const SpeedMemory& speeds) {
  json workers = json::object();
  for (const auto& [key, learnt] : speeds) {
    json worker = {{"seconds_per_token", learnt.speed.seconds_per_token},
                   {"seconds_per_pair", learnt.speed.seconds_per_pair},
                   {"seconds_per_chunk", learnt.speed.seconds_per_chunk},
                   {"seconds_per_prefix_token", learnt.speed.seconds_per_prefix_token}};
    if (learnt.link_bytes_per_second) worker["link_bytes_per_second"] = *learnt.link_bytes_per_second;
    workers[key] = std::move(worker);
  }
  return to_text({{"workers", workers}}, 1) + "\n";
}

Result<SpeedMemory> parse_speed_memory(std::string_view text) {
  const json file = json::parse(text, nullptr, false);
  if (!file.is_object() || !file.contains("workers") || !file["workers"].is_object())
    return fail(ErrorCode::kCorrupt, "no speeds of workers");
  SpeedMemory speeds;
  for (const auto& [key, worker] : file["workers"].items()) {
    const auto learnt = parse_speeds(worker);
    if (!learnt) return fail(ErrorCode::kCorrupt, "the speeds of a worker are not complete");
    speeds.emplace(key, *learnt);
  }
  return speeds;
}

}  // namespace runahead
