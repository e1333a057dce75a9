// What a coordinator learnt of its workers' speeds, kept in <cache folder>/worker-speeds.json from one life to the next, so that
// the first plan after a restart is as good as the last one before. Written at the end of a coordinator; several on one machine
// share the file, each adds what it knows. A file that cannot be read or written costs nothing but that.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "base/result.h"
#include "planner/profile.h"

namespace runahead {

std::filesystem::path speed_memory_file();
// Empty if there is none, or if it is damaged.
SpeedMemory read_speed_memory(const std::filesystem::path& path);
void add_to_speed_memory(const std::filesystem::path& path, const SpeedMemory& speeds);

std::string encode_speed_memory(const SpeedMemory& speeds);
// kCorrupt with the reason.
Result<SpeedMemory> parse_speed_memory(std::string_view text);

}  // namespace runahead
