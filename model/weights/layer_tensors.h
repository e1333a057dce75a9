// LayerTensors: the names that GGUF has for the tensors of one layer. layer_rows.cc and weights.cc read them all, and
// unread_parts.cc takes no others.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/architecture.h"
#include "model/weights/gguf.h"

namespace runahead {

// Empty names: the layer has none of it.
struct LayerTensors {
  struct Norm {
    std::string gain, bias;
  };
  // What a product is made of.
  struct Product {
    std::string weight, bias;
  };
  struct Expert {
    std::string gate, up, down;
  };

  LayerTensors(const Gguf& file, const LayerConfig& config, int32_t layer);
  std::vector<std::string> all() const;

  Norm attention_norm, attention_post_norm, ffn_norm, ffn_post_norm;
  std::string q_norm, k_norm;  // gains
  Product q, k, v;
  Product qkv;  // the rows of the three in one tensor, instead of them
  Product attention_out;
  Product gate, up, down;  // with experts: of three dimensions, one expert behind the other
  std::vector<Expert>
      experts;  // instead of those, in old files and folders of Hugging Face's: tensors of one expert each
  std::string router;  // [experts, model_dim]
};

// Of the norm before the head.
LayerTensors::Norm output_norm_tensors(const Gguf& file);

}  // namespace runahead
