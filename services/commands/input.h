// Flags and inputs that several commands share: where the model is, what the prompt is.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "services/local_cluster.h"

namespace runahead {

struct PromptOptions {
  std::string text, file, token_ids_file;
  bool raw = false;
};

struct Prompt {
  std::string text;                // empty if token_ids are given
  std::vector<TokenId> token_ids;
  bool chat = true;                // text is one user message; false: taken as it is
};

void add_prompt_flags(CLI::App& command, PromptOptions& options);
// Exactly one source must be given; kNotFound for a missing file; "-" reads standard input.
Result<Prompt> read_prompt(const PromptOptions& options);

// --model --override-kv
void add_model_flags(CLI::App& command, std::string& model, std::vector<std::string>& override_kv);
void add_chat_template_flag(CLI::App& command, std::string& chat_template);

// --model --override-kv --chat-template --workers --compute --threads-per-worker --transport
void add_cluster_flags(CLI::App& command, LocalClusterOptions& options);

// --packed-cache DIR|off
void add_packed_cache_flag(CLI::App& command, std::string& folder);

// The whole file, or standard input for "-". kNotFound, kTooLarge (limits::kJsonBodyBytesMax).
Result<std::string> read_text_file(const std::string& path);
// A JSON array of token ids.
Result<std::vector<TokenId>> read_token_ids(const std::string& path);

}  // namespace runahead
