#include "model/chat_template/expressions.h"

#include <algorithm>

namespace runahead::jinja {

std::unexpected<Error> ExpressionParser::unexpected() const {
  switch (now().kind) {
    case TokenKind::kEnd:
      return syntax_error(now().line, "the template ends inside a tag or block");
    case TokenKind::kOutputEnd:
    case TokenKind::kBlockEnd:
      return syntax_error(now().line, "a tag ends too early");
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return syntax_error(now().line, "unexpected number");
    default:
      return syntax_error(now().line, "unexpected '" + now().text.substr(0, 40) + "'");
  }
}

bool ExpressionParser::skip_op(std::string_view op) {
  if (!at_op(op)) return false;
  skip();
  return true;
}

bool ExpressionParser::skip_name(std::string_view name) {
  if (!at_name(name)) return false;
  skip();
  return true;
}

Result<void> ExpressionParser::expect_op(std::string_view op) {
  if (!skip_op(op)) return unexpected();
  return {};
}

Result<void> ExpressionParser::expect(TokenKind kind, const char* what) {
  if (!at(kind)) return syntax_error(now().line, std::string("expected ") + what);
  skip();
  return {};
}

Result<std::string> ExpressionParser::expect_name() {
  if (!at(TokenKind::kName)) return unexpected();
  std::string name = now().text;
  skip();
  return name;
}

ExprPtr ExpressionParser::make(ExprKind kind, ExprPtr first) const {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = first ? first->line : now().line;
  if (first) expr->args.push_back(std::move(first));
  return expr;
}

Result<ExprPtr> ExpressionParser::tuple(bool conditional, std::string_view end, bool in_parentheses) {
  const auto ended = [&] {
    return at(TokenKind::kOutputEnd) || at(TokenKind::kBlockEnd) || at_op(")") || (!end.empty() && at_name(end));
  };
  if (ended()) {
    if (!in_parentheses) return unexpected();
    return make(ExprKind::kTuple);
  }
  ExprPtr first = TRY(conditional ? expression() : boolean(true));
  if (!at_op(",")) return first;
  ExprPtr result = make(ExprKind::kTuple, std::move(first));
  while (skip_op(",")) {
    if (ended()) break;
    result->args.push_back(TRY(conditional ? expression() : boolean(true)));
  }
  return result;
}

Result<ExprPtr> ExpressionParser::expression() {
  const Nested nested(*this);
  TRY(check_depth());
  ExprPtr result = TRY(boolean(true));
  for (int links = 0; skip_name("if"); ++links) {
    if (links > limits::kTemplateDepthMax) return syntax_error(now().line, "too many conditions in one expression");
    result = make(ExprKind::kConditional, std::move(result));
    result->args.push_back(TRY(boolean(true)));
    result->args.push_back(skip_name("else") ? TRY(expression()) : nullptr);
  }
  return result;
}

Result<ExprPtr> ExpressionParser::boolean(bool is_or) {
  const std::string_view word = is_or ? "or" : "and";
  ExprPtr first = TRY(is_or ? boolean(false) : negation());
  if (!at_name(word)) return first;
  ExprPtr result = make(is_or ? ExprKind::kOr : ExprKind::kAnd, std::move(first));
  while (skip_name(word)) result->args.push_back(TRY(is_or ? boolean(false) : negation()));
  return result;
}

Result<ExprPtr> ExpressionParser::negation() {
  const Nested nested(*this);
  TRY(check_depth());
  if (!skip_name("not")) return comparison();
  return make(ExprKind::kNot, TRY(negation()));
}

std::optional<Op> ExpressionParser::compare_op() {
  static constexpr std::pair<std::string_view, Op> kOps[] = {{"==", Op::kEqual},  {"!=", Op::kNotEqual},
                                                             {"<", Op::kLess},    {"<=", Op::kLessEqual},
                                                             {">", Op::kGreater}, {">=", Op::kGreaterEqual}};
  for (const auto& [text, op] : kOps) {
    if (skip_op(text)) return op;
  }
  if (skip_name("in")) return Op::kIn;
  if (at_name("not") && ahead().kind == TokenKind::kName && ahead().text == "in") {
    skip();
    skip();
    return Op::kNotIn;
  }
  return std::nullopt;
}

Result<ExprPtr> ExpressionParser::comparison() {
  ExprPtr first = TRY(sum());
  std::optional<Op> op = compare_op();
  if (!op) return first;
  ExprPtr result = make(ExprKind::kCompare, std::move(first));
  for (; op; op = compare_op()) {
    result->ops.push_back(*op);
    result->args.push_back(TRY(sum()));
  }
  return result;
}

Result<ExprPtr> ExpressionParser::sum() {
  ExprPtr first = TRY(concat());
  if (!at_op("+") && !at_op("-")) return first;
  ExprPtr result = make(ExprKind::kArithmetic, std::move(first));
  while (at_op("+") || at_op("-")) {
    result->ops.push_back(at_op("+") ? Op::kAdd : Op::kSub);
    skip();
    result->args.push_back(TRY(concat()));
  }
  return result;
}

Result<ExprPtr> ExpressionParser::concat() {
  ExprPtr first = TRY(product());
  if (!at_op("~")) return first;
  ExprPtr result = make(ExprKind::kConcat, std::move(first));
  while (skip_op("~")) result->args.push_back(TRY(product()));
  return result;
}

Result<ExprPtr> ExpressionParser::product() {
  const auto op = [&]() -> std::optional<Op> {
    if (skip_op("*")) return Op::kMul;
    if (skip_op("/")) return Op::kDiv;
    if (skip_op("//")) return Op::kFloorDiv;
    if (skip_op("%")) return Op::kMod;
    return std::nullopt;
  };
  ExprPtr first = TRY(power());
  std::optional<Op> next = op();
  if (!next) return first;
  ExprPtr result = make(ExprKind::kArithmetic, std::move(first));
  for (; next; next = op()) {
    result->ops.push_back(*next);
    result->args.push_back(TRY(power()));
  }
  return result;
}

// Left to right, as jinja2 does it (unlike Python).
Result<ExprPtr> ExpressionParser::power() {
  ExprPtr first = TRY(unary(true));
  if (!at_op("**")) return first;
  ExprPtr result = make(ExprKind::kArithmetic, std::move(first));
  while (skip_op("**")) {
    result->ops.push_back(Op::kPow);
    result->args.push_back(TRY(unary(true)));
  }
  return result;
}

Result<ExprPtr> ExpressionParser::unary(bool with_filters) {
  const Nested nested(*this);
  TRY(check_depth());
  ExprPtr node;
  if (skip_op("-")) {
    node = make(ExprKind::kNegate, TRY(unary(false)));
  } else if (skip_op("+")) {
    node = make(ExprKind::kPositive, TRY(unary(false)));
  } else {
    node = TRY(primary());
  }
  node = TRY(postfix(std::move(node), false));
  return with_filters ? postfix(std::move(node), true) : Result<ExprPtr>(std::move(node));
}

Result<ExprPtr> ExpressionParser::primary() {
  if (at_op("[")) return list();
  if (at_op("{")) return dict();
  if (skip_op("(")) {
    ExprPtr inner = TRY(tuple(true, {}, true));
    TRY(expect_op(")"));
    return inner;
  }
  ExprPtr node = make(ExprKind::kConstant);
  const Token& token = now();
  if (at(TokenKind::kString)) {
    std::string text;
    for (; at(TokenKind::kString); skip()) text += now().text;
    node->constant = Value::string(std::move(text));
    return node;
  }
  if (at(TokenKind::kInteger)) {
    node->constant = Value::integer(token.integer);
  } else if (at(TokenKind::kFloat)) {
    node->constant = Value::real(token.real);
  } else if (at_name("true") || at_name("True") || at_name("false") || at_name("False")) {
    node->constant = Value::boolean(token.text[0] == 't' || token.text[0] == 'T');
  } else if (at_name("none") || at_name("None")) {
    node->constant = Value::none();
  } else if (at(TokenKind::kName)) {
    node->kind = ExprKind::kName;
    node->name = token.text;
    if (macro_) {
      macro_->takes_varargs |= token.text == "varargs";
      macro_->takes_kwargs |= token.text == "kwargs";
      macro_->takes_caller |= token.text == "caller";
    }
  } else {
    return unexpected();
  }
  skip();
  return node;
}

Result<ExprPtr> ExpressionParser::list() {
  ExprPtr result = make(ExprKind::kList);
  TRY(expect_op("["));
  while (!at_op("]")) {
    if (!result->args.empty()) TRY(expect_op(","));
    if (at_op("]")) break;
    result->args.push_back(TRY(expression()));
  }
  skip();
  return result;
}

Result<ExprPtr> ExpressionParser::dict() {
  ExprPtr result = make(ExprKind::kDict);
  TRY(expect_op("{"));
  while (!at_op("}")) {
    if (!result->args.empty()) TRY(expect_op(","));
    if (at_op("}")) break;
    result->args.push_back(TRY(expression()));
    TRY(expect_op(":"));
    result->args.push_back(TRY(expression()));
  }
  skip();
  return result;
}

// Attributes, subscripts and calls; or, with `filters`, filters, tests and calls of their results.
Result<ExprPtr> ExpressionParser::postfix(ExprPtr node, bool filters) {
  for (int links = 0;; ++links) {
    if (links > limits::kTemplateDepthMax) return syntax_error(now().line, "too many links in one expression");
    if (at_op("(")) {
      node = make(ExprKind::kCall, std::move(node));
      TRY(call_arguments(*node));
    } else if (!filters && (at_op(".") || at_op("["))) {
      node = TRY(subscript(std::move(node)));
    } else if (filters && skip_op("|")) {
      node = TRY(filter(std::move(node)));
    } else if (filters && skip_name("is")) {
      node = TRY(test(std::move(node)));
    } else {
      return node;
    }
  }
}

Result<ExprPtr> ExpressionParser::subscript(ExprPtr node) {
  if (skip_op(".")) {
    const bool number = at(TokenKind::kInteger);
    ExprPtr result = make(number ? ExprKind::kItem : ExprKind::kAttribute, std::move(node));
    if (number) {
      result->args.push_back(TRY(primary()));
    } else {
      result->name = TRY(expect_name());
    }
    return result;
  }
  skip();
  ExprPtr first = at_op(":") ? nullptr : TRY(expression());
  ExprPtr result = make(at_op(":") ? ExprKind::kSlice : ExprKind::kItem, std::move(node));
  result->args.push_back(std::move(first));
  if (result->kind == ExprKind::kSlice) {
    for (int part = 0; part < 2; ++part) {
      const bool given = skip_op(":") && !at_op(":") && !at_op("]");
      result->args.push_back(given ? TRY(expression()) : nullptr);
    }
  }
  TRY(expect_op("]"));
  return result;
}

// The name and arguments behind a `|`.
Result<ExprPtr> ExpressionParser::filter(ExprPtr node) {
  ExprPtr result = make(ExprKind::kFilter);
  result->args.push_back(std::move(node));
  result->name = TRY(expect_name());
  if (at_op("(")) TRY(call_arguments(*result));
  return result;
}

Result<ExprPtr> ExpressionParser::filters(ExprPtr node) {
  for (int links = 0; skip_op("|"); ++links) {
    if (links > limits::kTemplateDepthMax) return syntax_error(now().line, "too many filters");
    node = TRY(filter(std::move(node)));
  }
  return node;
}

Result<ExprPtr> ExpressionParser::test(ExprPtr node) {
  const bool negated = skip_name("not");
  ExprPtr result = make(ExprKind::kTest, std::move(node));
  result->name = TRY(expect_name());
  const bool operand = at(TokenKind::kName) || at(TokenKind::kString) || at(TokenKind::kInteger) ||
                       at(TokenKind::kFloat) || at_op("[") || at_op("{");
  if (at_op("(")) {
    TRY(call_arguments(*result));
  } else if (operand && !at_name("else") && !at_name("or") && !at_name("and")) {
    if (at_name("is")) return syntax_error(now().line, "tests cannot be chained with 'is'");
    result->args.push_back(TRY(postfix(TRY(primary()), false)));
  }
  return negated ? make(ExprKind::kNot, std::move(result)) : std::move(result);
}

Result<void> ExpressionParser::call_arguments(Expr& call) {
  TRY(expect_op("("));
  for (bool first = true; !at_op(")"); first = false) {
    if (!first) TRY(expect_op(","));
    if (at_op(")")) break;
    if (skip_op("**")) {
      if (call.spread_dict) return unexpected();
      call.spread_dict = TRY(expression());
    } else if (skip_op("*")) {
      if (call.spread_list || call.spread_dict) return unexpected();
      call.spread_list = TRY(expression());
    } else if (at(TokenKind::kName) && ahead().kind == TokenKind::kOperator && ahead().text == "=") {
      const std::string name = TRY(expect_name());
      skip();
      call.named.emplace_back(name, TRY(expression()));
    } else {
      if (!call.named.empty() || call.spread_list || call.spread_dict) return unexpected();
      call.args.push_back(TRY(expression()));
    }
    if (call.args.size() + call.named.size() > Args::kArgsMax) {
      return syntax_error(now().line, "a call has over 255 arguments");
    }
  }
  skip();
  return {};
}

}  // namespace runahead::jinja
