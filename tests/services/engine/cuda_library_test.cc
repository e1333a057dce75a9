// How a process comes by a GPU, with the emulation in the place of librunahead_cuda.so, and what it says without. The emulation's
// place is taken by the GPU behind RUNAHEAD_TEST_CUDA_LIBRARY (tests/run.sh gpu).
#include "services/engine/cuda_library.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "services/engine/engine_loading.h"
#include "services/engine/engine_profile.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace runahead {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

const char* tested_library() {
  const char* of_gpu = std::getenv("RUNAHEAD_TEST_CUDA_LIBRARY");
  return of_gpu != nullptr ? of_gpu : RUNAHEAD_BINARY_DIR "/tests/support/simt/librunahead_cuda_emulation.so";
}

class CudaLibrary : public ::testing::Test {
 protected:
  void TearDown() override { unsetenv("RUNAHEAD_CUDA_LIBRARY"); }
  static void look_at(const char* path) { setenv("RUNAHEAD_CUDA_LIBRARY", path, 1); }
  static std::string refusal(int device = 0) {
    const auto ops = open_cuda(device);
    return ops ? "it was opened" : ops.error().message;
  }
};

TEST_F(CudaLibrary, IsOpenedWhereItIsSaidToBe) {
  look_at(tested_library());
  const auto ops = open_cuda(0);
  ASSERT_TRUE(ops) << ops.error().message;
  EXPECT_STRNE((*ops)->device, "");
  EXPECT_THAT(refusal(99), HasSubstr("there is no device 99, there are "));
}

TEST_F(CudaLibrary, WhatIsMissingIsSaidInASentence) {
  EXPECT_THAT(refusal(), HasSubstr("which a build with RUNAHEAD_CUDA makes; --compute auto runs on the CPU"));
  look_at("/nowhere/librunahead_cuda.so");
  EXPECT_THAT(refusal(), HasSubstr("no GPU is used: there is no /nowhere/librunahead_cuda.so"));
  look_at("/dev/null");
  EXPECT_THAT(refusal(), HasSubstr("no GPU is used: /dev/null: file too short"));
  look_at("libm.so.6");
  EXPECT_THAT(refusal(), HasSubstr("there is no libm.so.6"));
}

TEST_F(CudaLibrary, AWorkerComputesWithIt) {
  look_at(tested_library());
  const test::TempDir dir;
  test::write_tiny_llama(dir / "tiny.gguf", 1, {.num_layers = 1});
  const EngineFlags flags{.model = {.name = (dir / "tiny.gguf").string()}, .compute = "cuda"};
  const auto worker = open_worker_engine(flags, false);
  ASSERT_TRUE(worker) << worker.error().message;
  EXPECT_THAT(worker->device, StartsWith("cuda "));
  EXPECT_EQ(worker->engine->compute_name(), "cuda-bf16");
  EXPECT_EQ(worker->host_bytes, 0u);
  EXPECT_GT(worker->device_bytes_free.value_or(0), 0u);
  const auto on_cpu = open_engine(flags, false);
  ASSERT_FALSE(on_cpu);
  EXPECT_THAT(on_cpu.error().message, HasSubstr("this command runs on the CPU"));
}

// A worker's first work, before it registers.
TEST_F(CudaLibrary, AWorkerMeasuresItsEngine) {
  look_at(tested_library());
  const test::TempDir dir;
  test::write_tiny_llama(dir / "tiny.gguf", 1, {.num_layers = 1, .context_len = 256});
  for (const char* compute : {"cuda", "bf16+cuda"}) {
    const auto worker =
        open_worker_engine({.model = {.name = (dir / "tiny.gguf").string()}, .compute = compute}, false);
    ASSERT_TRUE(worker) << worker.error().message;
    const auto profile = measure_engine(*worker->engine, AsioClock());
    ASSERT_TRUE(profile) << profile.error().message;
    EXPECT_GT(profile->seconds_per_token, 0) << compute;
  }
}

}  // namespace
}  // namespace runahead
