#include "services/commands/input.h"

#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/limits.h"

namespace runahead {

void add_prompt_flags(CLI::App& command, PromptOptions& options) {
  command.add_option("-p,--prompt", options.text, "the prompt: one user message");
  command.add_option("--prompt-file", options.file, "read the prompt from a file, - for standard input");
  command.add_option("--token-ids-file", options.token_ids_file, "a JSON array of token ids, taken as they are");
  command.add_flag("--raw", options.raw, "take the prompt as it is, without the chat template");
}

Result<Prompt> read_prompt(const PromptOptions& options) {
  const int given = !options.text.empty() + !options.file.empty() + !options.token_ids_file.empty();
  if (given != 1)
    return fail(ErrorCode::kInvalidArgument, "give the prompt by exactly one of --prompt, --prompt-file and --token-ids-file",
                "prompt");
  Prompt prompt{.text = options.text, .chat = !options.raw};
  if (!options.file.empty()) prompt.text = TRY(read_text_file(options.file));
  if (!options.token_ids_file.empty()) {
    prompt.token_ids = TRY(read_token_ids(options.token_ids_file));
    prompt.chat = false;
  } else if (prompt.text.empty()) {
    return fail(ErrorCode::kInvalidArgument, options.file + " is empty: a prompt needs at least one token", "prompt-file");
  }
  return prompt;
}

void add_packed_cache_flag(CLI::App& command, std::string& folder) {
  command.add_option("--packed-cache", folder,
                     "folder of the packed weights that all workers here share, or off; default: ~/.cache/runahead/packed");
}

void add_model_flags(CLI::App& command, std::string& model, std::vector<std::string>& override_kv) {
  command.add_option("-m,--model", model, "path of a GGUF file, or a short name (smollm2)");
  command
      .add_option("--override-kv", override_kv,
                  "KEY=TYPE:VALUE, a key of the file set anew (TYPE int, float, bool or str), the same for the whole cluster; "
                  "may be repeated; default: none")
      ->allow_extra_args(false);
}

void add_chat_template_flag(CLI::App& command, std::string& chat_template) {
  command.add_option("--chat-template,--chat-template-file", chat_template,
                     "file with a Jinja template for chats; default: the model's own");
}

void add_cluster_flags(CLI::App& command, LocalClusterOptions& options) {
  add_model_flags(command, options.model, options.override_kv);
  add_chat_template_flag(command, options.chat_template);
  command.add_option("-w,--workers", options.workers, "prefill workers")->check(CLI::Range(1, limits::kWorkersMax));
  command.add_option("--compute", options.compute, "auto, fp32, bf16, int16 or int8");
  add_packed_cache_flag(command, options.packed_cache);
  command.add_option("--threads-per-worker", options.threads_per_worker, "compute threads of each prefill worker")
      ->check(CLI::Range(1, 256));
  command.add_option("--decode-threads", options.decode_threads, "compute threads of the decode worker")
      ->check(CLI::Range(1, 256));
  command.add_option("--transport", options.transport, "of K/V pages: auto, tcp or ucx")
      ->check(CLI::IsMember({"auto", "tcp", "ucx"}));
}

Result<std::string> read_text_file(const std::string& path) {
  std::string text;
  if (path == "-") {
    text.assign(std::istreambuf_iterator<char>(std::cin), {});
  } else {
    std::ifstream file(path, std::ios::binary);
    if (!std::filesystem::is_regular_file(path) || !file)
      return fail(ErrorCode::kNotFound, "there is no readable file " + path);
    if (std::filesystem::file_size(path) > limits::kJsonBodyBytesMax)
      return fail(ErrorCode::kTooLarge, path + " is larger than " + std::to_string(limits::kJsonBodyBytesMax >> 20) + " MiB");
    text.assign(std::istreambuf_iterator<char>(file), {});
  }
  return text;
}

Result<std::vector<TokenId>> read_token_ids(const std::string& path) {
  const auto json = nlohmann::json::parse(TRY(read_text_file(path)), nullptr, false);
  std::vector<TokenId> ids;
  if (json.is_array())
    for (const auto& id : json)
      if (id.is_number_integer() && id.get<int64_t>() >= 0 && id.get<int64_t>() <= INT32_MAX) ids.push_back(id.get<TokenId>());
  if (!json.is_array() || ids.size() != json.size() || ids.empty())
    return fail(ErrorCode::kInvalidArgument, path + " must hold one JSON array of token ids, e.g. [1, 2, 3]", "token-ids-file");
  return ids;
}

}  // namespace runahead
