// LayerTensors: the names that GGUF has for the tensors of one layer. weights.cc packs them all, and unread_parts.cc
// takes no others.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/weights/gguf.h"

namespace runahead {

struct LayerTensors {
  LayerTensors(const Gguf& file, int32_t layer);
  std::vector<std::string> all() const;

  std::string attention_norm, ffn_norm;
  std::string q, k, v;
  std::string qkv;  // the rows of the three in one tensor, instead of them; empty if the file has none
  std::string attention_out;
  std::string gate, up, down;
};

}  // namespace runahead
