// Faults that are planted in kernels/cuda are found by what the tests compare and by what the emulation watches.
#include "mutants.inc"

#include <gtest/gtest.h>

#include <string>

namespace {

TEST(CudaMutants, EachPlantedFaultIsFoundAndNoneWhereThereIsNone) {
  for (const auto& [name, check] : kMutants) {
    const std::string told = check();
    std::printf("%s: %s\n", name, told.empty() ? "all is well" : told.c_str());
    EXPECT_EQ(told.empty(), std::string(name) == "none") << name << ": " << told;
  }
}

}  // namespace
