// Flags and inputs that several commands share: numbers, where the model is, what the prompt is.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "services/cluster/local_cluster.h"

namespace runahead {

// Checks of numeric flags. CLI11's own take nan, "1e999" and, for unsigned, -1; these take plain decimal numbers only.
CLI::Validator whole_number(int64_t min, int64_t max);
CLI::Validator real_number(double min, double max);

struct PromptOptions {
  std::optional<std::string> text, file, token_ids_file;
  bool raw = false;
};

struct Prompt {
  std::string text;                // valid UTF-8; empty if token_ids are given
  std::vector<TokenId> token_ids;
  bool chat = true;                // text is one user message; false: taken as it is
};

void add_prompt_flags(CLI::App& command, PromptOptions& options);
// One source at most; without any, standard input that is no terminal is the prompt. kNotFound for a missing file.
Result<Prompt> read_prompt(const PromptOptions& options);

// --model --override-kv
void add_model_flags(CLI::App& command, ModelFlags& model);
void add_chat_template_flag(CLI::App& command, std::string& chat_template);

// --model --override-kv --chat-template --workers --compute --threads-per-worker --transport
void add_cluster_flags(CLI::App& command, LocalClusterOptions& options);
void add_model_flag(CLI::App& command, std::string& model);
void add_compute_flag(CLI::App& command, std::string& compute);
void add_split_table_flag(CLI::App& command, std::string& file);
void add_prefix_cache_flag(CLI::App& command, bool& prefix_cache);
void add_partition_flags(CLI::App& command, std::string& strategy, std::vector<int32_t>& cuts);  // one or the other
void add_threads_flag(CLI::App& command, int& threads);

// --generation-defaults JSON|none, --default-max-tokens N
void add_generation_flags(CLI::App& command, GenerationFlags& flags);

// --packed-cache DIR|off
void add_packed_cache_flag(CLI::App& command, std::string& folder);

// All of a file, a pipe, or standard input for "-". kNotFound, kTooLarge (limits::kJsonBodyBytesMax).
Result<std::string> read_text_file(const std::string& path);
// A JSON array of token ids.
Result<std::vector<TokenId>> read_token_ids(const std::string& path);

}  // namespace runahead
