// How fast this machine's engines are, measured once for each and kept in <cache folder>/engine-profiles.json: so that
// `runahead plan` answers the same twice, also on a busy machine. Another build or processor measures anew.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "base/result.h"
#include "model/transformer/transformer.h"
#include "services/engine/engine_profile.h"

namespace runahead {

struct KeptProfile {
  EngineProfile profile;
  std::filesystem::path file;
  bool measured = true;  // just now; else read from the file
};

KeptProfile kept_profile(Transformer& engine, const Clock& clock);

// The file's text: profiles by what they are of (model, mode, instruction set, threads), for one machine.
using EngineProfiles = std::map<std::string, EngineProfile>;
std::string encode_engine_profiles(const EngineProfiles& profiles, std::string_view machine);
// kCorrupt with the reason if it is no such text, or of another machine.
Result<EngineProfiles> parse_engine_profiles(std::string_view text, std::string_view machine);

}  // namespace runahead
