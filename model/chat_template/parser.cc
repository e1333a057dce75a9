#include "model/chat_template/parser.h"

#include <initializer_list>

#include "model/chat_template/expressions.h"

namespace runahead::jinja {

namespace {

class Parser : private ExpressionParser {
 public:
  explicit Parser(std::vector<Token> tokens) : ExpressionParser(std::move(tokens)) {}
  Result<Block> run();

 private:
  using Names = std::initializer_list<std::string_view>;

  Result<Block> block(Names ends);
  Result<Block> body(Names ends);
  Result<Block> last_body(std::string_view end);
  Result<Stmt> statement();
  Result<void> set(Stmt& stmt);
  Result<void> for_loop(Stmt& stmt);
  Result<void> if_chain(Stmt& stmt);
  Result<void> macro(Stmt& stmt);
  Result<void> macro_body(Stmt& stmt, std::string_view end);
  Result<void> call_block(Stmt& stmt);
  Result<void> with(Stmt& stmt);
  Result<std::vector<Parameter>> parameters();
  Result<Target> target(bool with_attribute, std::string_view end);
  Result<Target> one_target(bool with_attribute);
};

Result<Block> Parser::run() {
  Block result = TRY(block({}));
  if (!at(TokenKind::kEnd)) return unexpected();
  return result;
}

// Text, outputs and statements up to a block tag named by one of `ends` (left at that name) or the end of the template.
Result<Block> Parser::block(Names ends) {
  const Nested nested(*this);
  TRY(check_depth());
  Block result;
  while (!at(TokenKind::kEnd)) {
    const int line = now().line;
    if (at(TokenKind::kText)) {
      result.push_back(Stmt{.kind = StmtKind::kText, .line = line, .text = now().text});
      skip();
    } else if (at(TokenKind::kOutputBegin)) {
      skip();
      Stmt stmt{.kind = StmtKind::kOutput, .line = line};
      stmt.exprs.push_back(TRY(tuple()));
      TRY(expect(TokenKind::kOutputEnd, "}}"));
      result.push_back(std::move(stmt));
    } else {
      TRY(expect(TokenKind::kBlockBegin, "{%"));
      for (const std::string_view end : ends) {
        if (at_name(end)) return result;
      }
      result.push_back(TRY(statement()));
      TRY(expect(TokenKind::kBlockEnd, "%}"));
    }
  }
  return result;
}

// The rest of an opening tag and the body behind it.
Result<Block> Parser::body(Names ends) {
  skip_op(":");
  TRY(expect(TokenKind::kBlockEnd, "%}"));
  Block result = TRY(block(ends));
  if (at(TokenKind::kEnd)) {
    return syntax_error(now().line, "a block has no end; expected {% " + std::string(*ends.begin()) + " %}");
  }
  return result;
}

Result<Block> Parser::last_body(std::string_view end) {
  Block result = TRY(body({end}));
  skip();
  return result;
}

Result<Stmt> Parser::statement() {
  const int line = now().line;
  const std::string name = TRY(expect_name());
  Stmt stmt{.kind = StmtKind::kText, .line = line};
  if (name == "set") {
    TRY(set(stmt));
  } else if (name == "for") {
    TRY(for_loop(stmt));
  } else if (name == "if") {
    TRY(if_chain(stmt));
  } else if (name == "macro") {
    TRY(macro(stmt));
  } else if (name == "call") {
    TRY(call_block(stmt));
  } else if (name == "with") {
    TRY(with(stmt));
  } else if (name == "filter") {
    stmt.kind = StmtKind::kFilterBlock;
    stmt.exprs.push_back(TRY(filters(TRY(filter(nullptr)))));
    stmt.bodies.push_back(TRY(last_body("endfilter")));
  } else if (name == "generation") {
    stmt.kind = StmtKind::kWith;
    stmt.bodies.push_back(TRY(last_body("endgeneration")));
  } else if (name == "break" || name == "continue") {
    if (loops_ == 0) return syntax_error(line, "'" + name + "' outside of a loop");
    stmt.kind = name == "break" ? StmtKind::kBreak : StmtKind::kContinue;
  } else {
    for (const std::string_view known : {"extends", "include", "import", "from", "block", "autoescape", "do"}) {
      if (name != known) continue;
      return fail(ErrorCode::kUnsupported, "line " + std::to_string(line) + " of the chat template uses {% " + name +
                                               " %}, which chat templates cannot use; give another template");
    }
    return syntax_error(line, "unknown tag '" + name.substr(0, 40) + "'");
  }
  return stmt;
}

Result<void> Parser::set(Stmt& stmt) {
  stmt.target = TRY(target(true, "="));
  if (skip_op("=")) {
    stmt.kind = StmtKind::kSet;
    stmt.exprs.push_back(TRY(tuple()));
    return {};
  }
  stmt.kind = StmtKind::kSetBlock;
  stmt.exprs.push_back(TRY(filters(nullptr)));
  stmt.bodies.push_back(TRY(last_body("endset")));
  return {};
}

Result<void> Parser::for_loop(Stmt& stmt) {
  stmt.kind = StmtKind::kFor;
  stmt.target = TRY(target(false, "in"));
  if (!skip_name("in")) return unexpected();
  stmt.exprs.push_back(TRY(tuple(false, "recursive")));
  stmt.exprs.push_back(skip_name("if") ? TRY(expression()) : nullptr);
  stmt.recursive = skip_name("recursive");
  ++loops_;
  stmt.bodies.push_back(TRY(body({"endfor", "else"})));
  --loops_;
  if (skip_name("endfor")) return {};
  skip();
  stmt.bodies.push_back(TRY(last_body("endfor")));
  return {};
}

Result<void> Parser::if_chain(Stmt& stmt) {
  stmt.kind = StmtKind::kIf;
  while (true) {
    stmt.exprs.push_back(TRY(tuple(false)));
    stmt.bodies.push_back(TRY(body({"endif", "elif", "else"})));
    if (skip_name("elif")) continue;
    if (skip_name("endif")) return {};
    skip();
    stmt.bodies.push_back(TRY(last_body("endif")));
    return {};
  }
}

Result<std::vector<Parameter>> Parser::parameters() {
  std::vector<Parameter> result;
  TRY(expect_op("("));
  while (!at_op(")")) {
    if (!result.empty()) TRY(expect_op(","));
    Parameter parameter{TRY(expect_name()), nullptr};
    if (skip_op("=")) {
      parameter.default_value = TRY(expression());
    } else if (!result.empty() && result.back().default_value) {
      return syntax_error(now().line, "a parameter without a default follows one with a default");
    }
    result.push_back(std::move(parameter));
    if (result.size() > Args::kArgsMax) return syntax_error(now().line, "a macro has over 255 parameters");
  }
  skip();
  return result;
}

Result<void> Parser::macro_body(Stmt& stmt, std::string_view end) {
  Stmt* const outer = std::exchange(macro_, &stmt);
  const int outer_loops = std::exchange(loops_, 0);
  stmt.bodies.push_back(TRY(last_body(end)));
  macro_ = outer;
  loops_ = outer_loops;
  if (outer) {
    outer->takes_varargs |= stmt.takes_varargs;
    outer->takes_kwargs |= stmt.takes_kwargs;
    outer->takes_caller |= stmt.takes_caller;
  }
  return {};
}

Result<void> Parser::macro(Stmt& stmt) {
  stmt.kind = StmtKind::kMacro;
  stmt.name = TRY(expect_name());
  stmt.parameters = TRY(parameters());
  return macro_body(stmt, "endmacro");
}

Result<void> Parser::call_block(Stmt& stmt) {
  stmt.kind = StmtKind::kCallBlock;
  stmt.name = "caller";
  if (at_op("(")) stmt.parameters = TRY(parameters());
  stmt.exprs.push_back(TRY(expression()));
  if (stmt.exprs[0]->kind != ExprKind::kCall) return syntax_error(stmt.line, "a call block needs a call");
  return macro_body(stmt, "endcall");
}

Result<void> Parser::with(Stmt& stmt) {
  stmt.kind = StmtKind::kWith;
  while (!at(TokenKind::kBlockEnd)) {
    if (!stmt.targets.empty()) TRY(expect_op(","));
    stmt.targets.push_back(TRY(one_target(false)));
    TRY(expect_op("="));
    stmt.exprs.push_back(TRY(expression()));
  }
  stmt.bodies.push_back(TRY(last_body("endwith")));
  return {};
}

Result<Target> Parser::one_target(bool with_attribute) {
  const Nested nested(*this);
  TRY(check_depth());
  if (skip_op("(")) {
    Target result = TRY(target(false, ")"));
    TRY(expect_op(")"));
    return result;
  }
  Target result{TRY(expect_name()), {}, {}};
  if (with_attribute && skip_op(".")) result.attribute = TRY(expect_name());
  return result;
}

Result<Target> Parser::target(bool with_attribute, std::string_view end) {
  Target first = TRY(one_target(with_attribute));
  if (!at_op(",")) return first;
  Target result;
  result.items.push_back(std::move(first));
  while (skip_op(",")) {
    if (at_op(end) || at_name(end)) break;
    result.items.push_back(TRY(one_target(with_attribute)));
  }
  return result;
}

}  // namespace

Result<Block> parse_template(std::string_view source) {
  if (source.size() > limits::kTemplateBytesMax) {
    return fail(ErrorCode::kTooLarge, "the chat template is over 1 MiB; give a smaller one");
  }
  return Parser(TRY(tokenize(source))).run();
}

}  // namespace runahead::jinja
