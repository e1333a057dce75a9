// The actors warn about what these tests do to them on purpose; the results speak for themselves. To read along:
// RUNAHEAD_TEST_LOG=debug
#include <cstdlib>

#include "base/log.h"

namespace runahead::test {
namespace {

const bool kQuiet = [] {
  const char* level = std::getenv("RUNAHEAD_TEST_LOG");
  log::set_level(std::string_view(level == nullptr ? "off" : level));
  return true;
}();

}  // namespace
}  // namespace runahead::test
