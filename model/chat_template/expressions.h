// The expression half of the chat-template parser (chat_template_parser.h), with jinja2's precedence, and the cursor
// over the tokens that both halves share.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/chat_template/ast.h"
#include "model/chat_template/lexer.h"

namespace runahead::jinja {

class ExpressionParser {
 protected:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  // Several expressions with commas between them make a tuple. `end` is a name that ends it.
  Result<ExprPtr> tuple(bool conditional = true, std::string_view end = {}, bool in_parentheses = false);
  Result<ExprPtr> expression();
  Result<ExprPtr> filter(ExprPtr node);   // the name and arguments behind a `|`
  Result<ExprPtr> filters(ExprPtr node);  // | a | b...

  const Token& now() const { return tokens_[pos_]; }
  const Token& ahead() const { return tokens_[std::min(pos_ + 1, tokens_.size() - 1)]; }
  bool at(TokenKind kind) const { return now().kind == kind; }
  bool at_op(std::string_view op) const { return at(TokenKind::kOperator) && now().text == op; }
  bool at_name(std::string_view name) const { return at(TokenKind::kName) && now().text == name; }
  void skip() { pos_ += pos_ + 1 < tokens_.size(); }
  bool skip_op(std::string_view op);
  bool skip_name(std::string_view name);
  Result<void> expect_op(std::string_view op);
  Result<void> expect(TokenKind kind, const char* what);
  Result<std::string> expect_name();
  std::unexpected<Error> unexpected() const;
  ExprPtr make(ExprKind kind, ExprPtr first = nullptr) const;

  // Counts nesting for as long as it lives, so that hostile templates cannot exhaust the stack.
  struct Nested {
    explicit Nested(ExpressionParser& parser) : parser(parser) { ++parser.depth_; }
    ~Nested() { --parser.depth_; }
    Nested(const Nested&) = delete;
    ExpressionParser& parser;
  };
  Result<void> check_depth() const {
    if (depth_ <= limits::kTemplateDepthMax) return {};
    return fail(ErrorCode::kTooLarge, "the chat template nests blocks or expressions too deeply; simplify it");
  }

  int loops_ = 0;          // open loops of the current macro
  Stmt* macro_ = nullptr;  // innermost open macro or call block

 private:
  // Loosest first.
  Result<ExprPtr> boolean(bool is_or);
  Result<ExprPtr> negation();
  Result<ExprPtr> comparison();
  Result<ExprPtr> sum();
  Result<ExprPtr> concat();
  Result<ExprPtr> product();
  Result<ExprPtr> power();
  Result<ExprPtr> unary(bool with_filters);
  Result<ExprPtr> primary();
  Result<ExprPtr> list();
  Result<ExprPtr> dict();
  Result<ExprPtr> postfix(ExprPtr node, bool filters);
  Result<ExprPtr> subscript(ExprPtr node);
  Result<ExprPtr> test(ExprPtr node);
  Result<void> call_arguments(Expr& call);
  std::optional<Op> compare_op();

  std::vector<Token> tokens_;
  size_t pos_ = 0;
  int depth_ = 0;
};

}  // namespace runahead::jinja
