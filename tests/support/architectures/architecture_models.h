// One small model with random weights of each architecture that we run, and of the variants that change what is computed. The
// same name makes the same file on every machine, so that llama.cpp can be asked about it, too (tests/e2e/test_architectures.py).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "model/architecture.h"
#include "tests/support/tiny_model.h"

namespace runahead::test {

struct ArchitectureModel {
  std::string name;  // of the file
  std::string architecture;
  TinyShape shape = {.num_layers = 3};
  NormKind norm = NormKind::kRms;
  QkNorm qk_norm = QkNorm::kNone;
  int32_t rotated = 0;  // 0: all of a head
  int32_t window = 0;
  bool pre_norms = true, ffn_norm = true, post_norms = false, second_norm = false;
  bool gate = true, fused_gate_up = false;
  int32_t experts = 0, experts_used = 0;
  bool experts_apart = false;  // a tensor for each, as before April 2024; else all in one
  bool qkv_bias = false, out_bias = false, ffn_bias = false, norm_bias = false;
  std::vector<std::pair<std::string, float>> numbers = {};  // keys without their prefix
  std::vector<std::pair<std::string, uint32_t>> counts = {};
  std::vector<std::pair<std::string, std::string>> words = {};
  std::vector<std::pair<std::string, std::vector<float>>> vectors = {};  // tensors outside the layers
};

const std::vector<ArchitectureModel>& architecture_models();
void write_architecture_model(const std::filesystem::path& path, const ArchitectureModel& model);

}  // namespace runahead::test
