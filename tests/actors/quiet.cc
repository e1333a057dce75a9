// The actors warn about what these tests do to them on purpose; the results speak for themselves. To read along:
// RUNAHEAD_TEST_LOG=debug
#include <cstdlib>

#include "base/log.h"

namespace runahead::test {
namespace {

const bool kQuiet = [] {
  const char* level = std::getenv("RUNAHEAD_TEST_LOG");
  spdlog::set_level(spdlog::level::from_str(level == nullptr ? "off" : level));
  return true;
}();

}  // namespace
}  // namespace runahead::test
