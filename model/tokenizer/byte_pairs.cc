#include "model/tokenizer/byte_pairs.h"

#include <array>

#include "model/model_config.h"

namespace runahead {
namespace {

// GPT-2's table: printable bytes of Latin-1 stand for themselves, the others for U+0100 and on, in order.
std::array<int16_t, 512> byte_of_code_point() {
  std::array<int16_t, 512> table;
  table.fill(-1);
  int16_t next = 256;
  for (int16_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    table[static_cast<size_t>(printable ? byte : next++)] = byte;
  }
  return table;
}

}  // namespace

bool bytes_from_stand_ins(std::string_view text, std::string& bytes) {
  static const std::array<int16_t, 512> kTable = byte_of_code_point();
  bytes.clear();
  for (size_t i = 0; i < text.size(); ++i) {
    auto code = static_cast<uint32_t>(static_cast<uint8_t>(text[i]));
    if (code >= 0x80) {  // all stand-ins lie below U+0144: two bytes
      if (code < 0xC2 || code > 0xC5 || i + 1 == text.size() || (static_cast<uint8_t>(text[i + 1]) & 0xC0) != 0x80)
        return false;
      code = (code & 31) << 6 | (static_cast<uint8_t>(text[++i]) & 63u);
    }
    if (kTable[code] < 0) return false;
    bytes += static_cast<char>(kTable[code]);
  }
  return true;
}

Result<BytePairs> BytePairs::load(const std::unordered_map<std::string, TokenId>& tokens, int32_t vocab_size,
                                  const std::vector<std::string_view>& merges) {
  BytePairs pairs;
  pairs.vocab_size_ = vocab_size;
  pairs.byte_tokens_.assign(256, kNoToken);
  std::unordered_map<std::string, int32_t> others;  // strings that are no token
  const auto symbol_of = [&](const std::string& bytes) {
    if (const auto token = tokens.find(bytes); token != tokens.end()) return token->second;
    return others.try_emplace(bytes, vocab_size + static_cast<int32_t>(others.size())).first->second;
  };
  for (size_t byte = 0; byte < 256; ++byte) {
    const std::string text(1, static_cast<char>(byte));
    pairs.byte_symbols_[byte] = symbol_of(text);
    if (const auto token = tokens.find(text); token != tokens.end()) pairs.byte_tokens_[byte] = token->second;
  }
  pairs.merges_.reserve(merges.size());
  std::string left, right;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const size_t space = merges[rank].find(' ');
    if (space == std::string_view::npos || !bytes_from_stand_ins(merges[rank].substr(0, space), left) ||
        !bytes_from_stand_ins(merges[rank].substr(space + 1), right) || left.empty() || right.empty())
      return fail(
          ErrorCode::kInvalidModel,
          "merge " + std::to_string(rank) + " of the tokenizer is no pair of byte strings; convert the model again",
          "tokenizer.ggml.merges");
    const PairMerging::Merge merge{static_cast<uint32_t>(rank), symbol_of(left + right)};
    pairs.merges_.try_emplace(pair_key(symbol_of(left), symbol_of(right)), merge);
  }
  return pairs;
}

void BytePairs::encode(std::string_view piece, PairMerging& merging, std::vector<TokenId>& out,
                       std::vector<size_t>& missing) const {
  using Symbol = PairMerging::Symbol;
  merging.start();
  for (uint32_t i = 0; i < piece.size(); ++i) merging.add({byte_symbols_[static_cast<uint8_t>(piece[i])], i});
  merging.run(static_cast<uint32_t>(piece.size()),
              [&](Symbol left, Symbol right, uint32_t) -> std::optional<PairMerging::Merge> {
                const auto merge = merges_.find(pair_key(left.id, right.id));
                if (merge == merges_.end()) return std::nullopt;
                return merge->second;
              });
  merging.each([&](int32_t symbol, uint32_t begin, uint32_t end) {
    if (symbol < vocab_size_) {
      out.push_back(symbol);
      return;
    }
    for (uint32_t i = begin; i < end; ++i) {
      const TokenId token = byte_tokens_[static_cast<uint8_t>(piece[i])];
      if (token == kNoToken) {
        missing.push_back(i);
      } else {
        out.push_back(token);
      }
    }
  });
}

}  // namespace runahead
