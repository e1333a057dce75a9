// The real model of tests that need one: SmolLM2-135M-Instruct, fetched by deploy/quickstart.sh and tests/run.sh.
#pragma once

#include <cstdlib>
#include <filesystem>

namespace runahead::test {

inline std::filesystem::path default_model() {
  const char* dir = std::getenv("RUNAHEAD_MODEL_DIR");
  const char* home = std::getenv("HOME");
  const std::filesystem::path models =
      dir != nullptr ? std::filesystem::path(dir)
                     : std::filesystem::path(home != nullptr ? home : ".") / ".cache/runahead/models";
  return models / "SmolLM2-135M-Instruct.Q4_1.gguf";
}

}  // namespace runahead::test

#define RUNAHEAD_SKIP_WITHOUT_MODEL()                              \
  if (!std::filesystem::exists(::runahead::test::default_model())) \
  GTEST_SKIP() << "no model at " << ::runahead::test::default_model() << ": run deploy/quickstart.sh"
