#include "services/engine/kept_profile.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <span>

#include "base/cache_file.h"
#include "base/check.h"
#include "base/json_text.h"
#include "base/log.h"
#include "services/engine/kernel_timings.h"
#include "services/engine/model_path.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr size_t kProfilesMax = 200;  // of about 200 bytes: read_kept takes all; then the file begins anew

bool is_duration(const json& fields, const char* key) {
  return fields.contains(key) && fields[key].is_number() && std::isfinite(fields[key].get<double>()) &&
         fields[key].get<double>() >= 0;
}

}  // namespace

KeptProfile kept_profile(Transformer& engine, const Clock& clock) {
  KeptProfile kept{.profile = {}, .file = cache_folder() / "engine-profiles.json"};
  const std::string machine = machine_text();
  const std::string key = fmt::format("{} {} {}", engine.fingerprint(), engine.ops().isa, engine.threads());
  EngineProfiles profiles = parse_engine_profiles(read_kept(kept.file), machine).value_or(EngineProfiles{});
  if (const auto known = profiles.find(key); known != profiles.end()) {
    kept.profile = known->second;
    kept.measured = false;
    return kept;
  }
  const auto measured = measure_engine(engine, clock);
  RUNAHEAD_CHECK(measured.has_value(), "the processor's memory is asked for as it is used");
  kept.profile = *measured;
  if (profiles.size() >= kProfilesMax) profiles.clear();
  profiles[key] = kept.profile;
  const std::string text = encode_engine_profiles(profiles, machine);
  std::error_code ignored;  // the write says what is wrong
  std::filesystem::create_directories(kept.file.parent_path(), ignored);
  const auto written = write_whole_file(kept.file, {std::as_bytes(std::span(text))});
  if (!written) log::debug("the engine's speed is not kept: {}", written.error().message);
  return kept;
}

std::string encode_engine_profiles(const EngineProfiles& profiles, std::string_view machine) {
  json entries = json::object();
  for (const auto& [key, profile] : profiles)
    entries[key] = {{"seconds_per_token", profile.seconds_per_token}, {"seconds_per_pair", profile.seconds_per_pair}};
  return to_text({{"machine", machine}, {"profiles", entries}}, 1) + "\n";
}

Result<EngineProfiles> parse_engine_profiles(std::string_view text, std::string_view machine) {
  const json file = json::parse(text, nullptr, false);
  if (!file.is_object() || !file.contains("profiles") || !file["profiles"].is_object())
    return fail(ErrorCode::kCorrupt, "no engine profiles");
  if (file.value("machine", json()) != machine) return fail(ErrorCode::kCorrupt, "engine profiles of another machine");
  EngineProfiles profiles;
  for (const auto& [key, entry] : file["profiles"].items()) {
    if (!entry.is_object() || !is_duration(entry, "seconds_per_token") || !is_duration(entry, "seconds_per_pair") ||
        entry["seconds_per_token"].get<double>() <= 0)
      return fail(ErrorCode::kCorrupt, "an engine profile is incomplete");
    profiles[key] = {.seconds_per_token = entry["seconds_per_token"], .seconds_per_pair = entry["seconds_per_pair"]};
  }
  return profiles;
}

}  // namespace runahead
