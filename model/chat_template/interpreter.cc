#include "model/chat_template/interpreter.h"

#include <algorithm>

#include "model/chat_template/builtins.h"
#include "model/chat_template/operators.h"

namespace runahead::jinja {

using Kind = Value::Kind;

// Opens a scope under `parent` and returns to the current one at its end.
class Interpreter::ScopeGuard {
 public:
  ScopeGuard(Interpreter& interpreter, ScopePtr parent)
      : interpreter_(interpreter), saved_(std::move(interpreter.scope_)) {
    interpreter.scope_ = std::make_shared<Scope>(std::move(parent));
  }
  explicit ScopeGuard(Interpreter& interpreter) : ScopeGuard(interpreter, interpreter.scope_) {}
  ~ScopeGuard() { interpreter_.scope_ = std::move(saved_); }
  ScopeGuard(const ScopeGuard&) = delete;

 private:
  Interpreter& interpreter_;
  ScopePtr saved_;
};

// Counts nesting, so that hostile templates cannot exhaust the stack.
class Interpreter::DepthGuard {
 public:
  explicit DepthGuard(Interpreter& interpreter) : interpreter_(interpreter) { ++interpreter_.depth_; }
  ~DepthGuard() { --interpreter_.depth_; }
  DepthGuard(const DepthGuard&) = delete;

  Result<void> check() const {
    if (interpreter_.depth_ <= limits::kTemplateDepthMax && interpreter_.budget_.spend(1)) return {};
    TRY(interpreter_.budget_.check());
    return fail(ErrorCode::kTooLarge, "the chat template nests blocks, expressions or macro calls too deeply");
  }

 private:
  Interpreter& interpreter_;
};

const Value* Interpreter::Scope::find(std::string_view name, Budget& budget) const {
  for (const Scope* scope = this; scope; scope = scope->parent.get()) {
    budget.spend(scope->variables.size() / 16);
    for (const auto& [key, value] : scope->variables) {
      if (key == name) return &value;
    }
  }
  return nullptr;
}

void Interpreter::Scope::set(const std::string& name, Value value, Budget& budget) {
  budget.spend(1 + variables.size() / 16);
  for (auto& [key, old] : variables) {
    if (key != name) continue;
    old = std::move(value);
    return;
  }
  variables.emplace_back(name, std::move(value));
}

Interpreter::Interpreter(Budget& budget) : budget_(budget) { define_globals(); }

Interpreter::~Interpreter() {
  for (const auto& scope : kept_scopes_) scope->variables.clear();
  for (const auto& name_space : namespaces_) name_space->attributes.clear();
}

Result<std::string> Interpreter::run(const Block& block) {
  const ScopeGuard guard(*this);
  TRY(execute(block));
  TRY(budget_.check());
  return std::move(out_);
}

// ---- statements ----

Result<Interpreter::Flow> Interpreter::execute(const Block& block) {
  const DepthGuard guard(*this);
  TRY(guard.check());
  for (const Stmt& stmt : block) {
    line_ = stmt.line;
    const Flow flow = TRY(execute(stmt));
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Result<Interpreter::Flow> Interpreter::execute(const Stmt& stmt) {
  switch (stmt.kind) {
    case StmtKind::kText:
      TRY(write(stmt.text));
      break;
    case StmtKind::kOutput:
      TRY(write(to_str(TRY(evaluate(*stmt.exprs[0])), budget_)));
      break;
    case StmtKind::kSet:
      TRY(assign(stmt.target, TRY(evaluate(*stmt.exprs[0]))));
      break;
    case StmtKind::kSetBlock:
      TRY(execute_set(stmt));
      break;
    case StmtKind::kIf:
      return execute_if(stmt);
    case StmtKind::kFor:
      TRY(execute_for(stmt, TRY(evaluate(*stmt.exprs[0])), 0));
      break;
    case StmtKind::kMacro:
      scope_->set(stmt.name, make_macro(stmt), budget_);
      break;
    case StmtKind::kCallBlock:
      TRY(execute_call_block(stmt));
      break;
    case StmtKind::kFilterBlock: {
      const Value body = Value::string(TRY(capture(stmt.bodies[0])));
      TRY(write(to_str(TRY(evaluate_filter(*stmt.exprs[0], &body)), budget_)));
      break;
    }
    case StmtKind::kWith:
      return execute_with(stmt);
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Result<void> Interpreter::write(std::string_view text) {
  budget_.spend_bytes(text.size());
  TRY(budget_.check());
  if (out_.size() + text.size() > limits::kTemplateOutputBytesMax) {
    return fail(ErrorCode::kTooLarge, "the chat template writes over 64 MiB; send shorter messages", "messages");
  }
  out_ += text;
  return {};
}

// What a block writes, as a string; the block has a scope of its own.
Result<std::string> Interpreter::capture(const Block& block) {
  const ScopeGuard guard(*this);
  std::string outer = std::exchange(out_, {});
  auto flow = execute(block);
  std::string text = std::exchange(out_, std::move(outer));
  TRY(std::move(flow));
  return text;
}

Result<void> Interpreter::execute_set(const Stmt& stmt) {
  Value value = Value::string(TRY(capture(stmt.bodies[0])));
  if (stmt.exprs[0]) value = TRY(evaluate_filter(*stmt.exprs[0], &value));
  return assign(stmt.target, std::move(value));
}

Result<Interpreter::Flow> Interpreter::execute_if(const Stmt& stmt) {
  for (size_t i = 0; i < stmt.bodies.size(); ++i) {
    const bool chosen = i >= stmt.exprs.size() || TRY(evaluate(*stmt.exprs[i])).truthy();
    if (chosen) return execute(stmt.bodies[i]);
  }
  return Flow::kNext;
}

Result<Interpreter::Flow> Interpreter::execute_with(const Stmt& stmt) {
  List values;
  for (const ExprPtr& expr : stmt.exprs) values.push_back(TRY(evaluate(*expr)));
  const ScopeGuard guard(*this);
  for (size_t i = 0; i < values.size(); ++i) TRY(assign(stmt.targets[i], values[i]));
  return execute(stmt.bodies[0]);
}

// The items that pass the loop's own `if`, so that loop.length counts only these.
Result<List> Interpreter::loop_items(const Stmt& stmt, const Value& iterable) {
  List items = TRY(iterate(iterable, budget_));
  if (!stmt.exprs[1]) return items;
  List kept;
  for (Value& item : items) {
    const ScopeGuard guard(*this);
    TRY(assign(stmt.target, item));
    if (TRY(evaluate(*stmt.exprs[1])).truthy()) kept.push_back(std::move(item));
  }
  return kept;
}

Result<void> Interpreter::execute_for(const Stmt& stmt, const Value& iterable, int depth) {
  if (iterable.is_undefined() && stmt.recursive && depth > 0) return type_error(iterable.why_undefined());
  auto loop = std::make_shared<Loop>();
  loop->items = TRY(loop_items(stmt, iterable));
  loop->depth = depth;
  for (const Value& item : loop->items) loop->value_depth = std::max(loop->value_depth, item.depth() + 1);
  if (loop->value_depth > limits::kTemplateDepthMax) budget_.report_depth();
  TRY(budget_.check());
  if (stmt.recursive) {
    kept_scopes_.push_back(scope_);
    loop->recurse = [this, &stmt, scope = scope_, depth](const Args& args) -> Result<Value> {
      if (args.positional.size() != 1) return type_error("loop() takes the items of the next level");
      const ScopeGuard guard(*this, scope);
      std::string outer = std::exchange(out_, {});
      auto done = execute_for(stmt, args.positional[0], depth + 1);
      std::string text = std::exchange(out_, std::move(outer));
      TRY(std::move(done));
      return Value::string(std::move(text));
    };
  }
  for (; loop->index < loop->items.size(); ++loop->index) {
    const ScopeGuard guard(*this);
    scope_->set("loop", Value::loop(loop), budget_);
    TRY(assign(stmt.target, loop->items[loop->index]));
    if (TRY(execute(stmt.bodies[0])) == Flow::kBreak) break;
  }
  if (loop->items.empty() && stmt.bodies.size() > 1) {
    const ScopeGuard guard(*this);
    TRY(execute(stmt.bodies[1]));
  }
  return {};
}

Result<void> Interpreter::assign(const Target& target, Value value) {
  if (!target.items.empty()) {
    List values = TRY(iterate(value, budget_));
    if (values.size() != target.items.size()) {
      return type_error("cannot unpack " + std::to_string(values.size()) + " values into " +
                        std::to_string(target.items.size()) + " names");
    }
    for (size_t i = 0; i < values.size(); ++i) TRY(assign(target.items[i], std::move(values[i])));
    return {};
  }
  if (target.attribute.empty()) {
    scope_->set(target.name, std::move(value), budget_);
    return {};
  }
  const Value* object = scope_->find(target.name, budget_);
  if (!object || !object->is(Kind::kNamespace)) return type_error("cannot assign attribute on non-namespace object");
  auto& attributes = object->as_namespace().attributes;
  budget_.spend(attributes.size() / 8);
  for (auto& [key, old] : attributes) {
    if (key != target.attribute) continue;
    old = std::move(value);
    return {};
  }
  attributes.emplace_back(target.attribute, std::move(value));
  return {};
}

// ---- macros ----

Value Interpreter::make_macro(const Stmt& stmt) {
  kept_scopes_.push_back(scope_);
  return Value::callable(stmt.name, [this, &stmt, scope = scope_](const Args& args) -> Result<Value> {
    const ScopeGuard guard(*this, scope);
    return call_macro(stmt, args);
  });
}

Result<Value> Interpreter::call_macro(const Stmt& stmt, const Args& args) {
  TRY(bind_parameters(stmt, args));
  TRY(bind_extras(stmt, args));
  return Value::string(TRY(capture(stmt.bodies[0])));
}

Result<void> Interpreter::bind_parameters(const Stmt& stmt, const Args& args) {
  for (size_t i = 0; i < stmt.parameters.size(); ++i) {
    const Parameter& parameter = stmt.parameters[i];
    const Value* given = args.find(i, parameter.name);
    Value value = Value::undefined("parameter '" + parameter.name + "' was not provided");
    if (given) {
      value = *given;
    } else if (parameter.default_value) {
      value = TRY(evaluate(*parameter.default_value));
    }
    scope_->set(parameter.name, std::move(value), budget_);
  }
  return {};
}

// Arguments without a parameter: `varargs`, `kwargs` and `caller`, where the body names them; otherwise an error.
Result<void> Interpreter::bind_extras(const Stmt& stmt, const Args& args) {
  const size_t count = stmt.parameters.size();
  if (args.positional.size() > count && !stmt.takes_varargs) {
    return type_error("macro '" + stmt.name + "' takes not more than " + std::to_string(count) + " argument(s)");
  }
  if (stmt.takes_varargs) {
    List extra;
    for (size_t i = count; i < args.positional.size(); ++i) extra.push_back(args.positional[i]);
    scope_->set("varargs", Value::list(std::move(extra), budget_, Sequence::kTuple), budget_);
  }
  auto extra = std::make_shared<Dict>();
  Value caller = Value::undefined("no caller defined");
  for (const auto& [name, value] : args.named) {
    size_t index = 0;
    while (index < count && stmt.parameters[index].name != name) ++index;
    if (index < count && index < args.positional.size()) {
      return type_error("macro '" + stmt.name + "' got multiple values for argument '" + name + "'");
    }
    if (index < count) continue;
    if (name == "caller" && stmt.takes_caller) {
      caller = value;
    } else if (stmt.takes_kwargs) {
      extra->set(Value::string(name), value, budget_);
    } else {
      return type_error("macro '" + stmt.name + "' takes no keyword argument '" + name + "'");
    }
  }
  if (stmt.takes_kwargs) scope_->set("kwargs", Value::dict(std::move(extra)), budget_);
  if (stmt.takes_caller && stmt.kind == StmtKind::kMacro) scope_->set("caller", std::move(caller), budget_);
  return {};
}

Result<void> Interpreter::execute_call_block(const Stmt& stmt) {
  const Expr& expr = *stmt.exprs[0];
  const Value callee = TRY(evaluate(*expr.args[0]));
  Args args = TRY(evaluate_arguments(expr));
  args.named.emplace_back("caller", make_macro(stmt));
  return write(to_str(TRY(call(callee, args)), budget_));
}

// ---- expressions ----

Result<Value> Interpreter::evaluate(const Expr& expr) {
  if (expr.kind == ExprKind::kConstant) return expr.constant;
  const DepthGuard guard(*this);
  TRY(guard.check());
  line_ = expr.line;
  Value value = TRY(evaluate_parts(expr));
  TRY(budget_.check());
  return value;
}

Result<Value> Interpreter::evaluate_parts(const Expr& expr) {
  switch (expr.kind) {
    case ExprKind::kConstant:
      return expr.constant;
    case ExprKind::kName:
      return evaluate_name(expr);
    case ExprKind::kList:
    case ExprKind::kTuple:
      return evaluate_list(expr);
    case ExprKind::kDict:
      return evaluate_dict(expr);
    case ExprKind::kAttribute:
      return attribute(TRY(evaluate(*expr.args[0])), expr.name, budget_);
    case ExprKind::kItem: {
      const Value object = TRY(evaluate(*expr.args[0]));
      return item(object, TRY(evaluate(*expr.args[1])), budget_);
    }
    case ExprKind::kSlice:
      return evaluate_slice(expr);
    case ExprKind::kCall:
      return evaluate_call(expr);
    case ExprKind::kFilter:
      return evaluate_filter(expr, nullptr);
    case ExprKind::kTest: {
      const Value input = TRY(evaluate(*expr.args[0]));
      return Value::boolean(TRY(apply_test(expr.name, input, TRY(evaluate_arguments(expr)), budget_)));
    }
    case ExprKind::kNot:
      return Value::boolean(!TRY(evaluate(*expr.args[0])).truthy());
    case ExprKind::kNegate:
      return negate(TRY(evaluate(*expr.args[0])));
    case ExprKind::kPositive:
      return arithmetic(Op::kAdd, Value::integer(0), TRY(evaluate(*expr.args[0])), budget_);
    case ExprKind::kArithmetic:
      return evaluate_arithmetic(expr);
    case ExprKind::kConcat:
      return evaluate_concat(expr);
    case ExprKind::kAnd:
    case ExprKind::kOr:
      return evaluate_logic(expr);
    case ExprKind::kCompare:
      return evaluate_compare(expr);
    case ExprKind::kConditional:
      return evaluate_conditional(expr);
  }
  return type_error("unknown expression");
}

Result<Value> Interpreter::evaluate_name(const Expr& expr) {
  if (const Value* found = scope_->find(expr.name, budget_)) return *found;
  return Value::undefined("'" + expr.name.substr(0, 100) + "' is undefined");
}

Result<Value> Interpreter::evaluate_list(const Expr& expr) {
  List items;
  for (const ExprPtr& part : expr.args) items.push_back(TRY(evaluate(*part)));
  return Value::list(std::move(items), budget_, expr.kind == ExprKind::kTuple ? Sequence::kTuple : Sequence::kList);
}

Result<Value> Interpreter::evaluate_dict(const Expr& expr) {
  auto dict = std::make_shared<Dict>();
  for (size_t i = 0; i < expr.args.size(); i += 2) {
    const Value key = TRY(evaluate(*expr.args[i]));
    if (!dict->set(key, TRY(evaluate(*expr.args[i + 1])), budget_)) {
      return type_error("a " + std::string(key.type_name()) + " cannot be a key of a dict");
    }
  }
  return Value::dict(std::move(dict));
}

Result<Value> Interpreter::evaluate_slice(const Expr& expr) {
  const Value object = TRY(evaluate(*expr.args[0]));
  Value bounds[3];
  for (int i = 0; i < 3; ++i) bounds[i] = expr.args[i + 1] ? TRY(evaluate(*expr.args[i + 1])) : Value::none();
  return slice(object, bounds[0], bounds[1], bounds[2], budget_);
}

Result<Args> Interpreter::evaluate_arguments(const Expr& expr) {
  Args args;
  for (size_t i = 1; i < expr.args.size(); ++i) args.positional.push_back(TRY(evaluate(*expr.args[i])));
  for (const auto& [name, value] : expr.named) args.named.emplace_back(name, TRY(evaluate(*value)));
  if (expr.spread_list) {
    for (Value& extra : TRY(iterate(TRY(evaluate(*expr.spread_list)), budget_))) {
      args.positional.push_back(std::move(extra));
    }
  }
  if (expr.spread_dict) {
    const Value extras = TRY(evaluate(*expr.spread_dict));
    if (!extras.is(Kind::kDict)) return type_error("** needs a mapping");
    for (const auto& [key, value] : extras.as_dict().entries()) {
      if (!key.is_string()) return type_error("keywords must be strings");
      args.named.emplace_back(key.as_string(), value);
    }
  }
  if (args.positional.size() > Args::kArgsMax || args.named.size() > Args::kArgsMax) {
    return type_error("a call has over 255 arguments");
  }
  return args;
}

Result<Value> Interpreter::evaluate_call(const Expr& expr) {
  const Value callee = TRY(evaluate(*expr.args[0]));
  const Args args = TRY(evaluate_arguments(expr));
  line_ = expr.line;
  return call(callee, args);
}

Result<Value> Interpreter::call(const Value& callee, const Args& args) {
  if (callee.is(Kind::kCallable)) return callee.as_callable().call(args);
  if (callee.is(Kind::kLoop)) {
    const std::shared_ptr<Loop> loop = callee.as_loop();
    if (loop->recurse) return loop->recurse(args);
    return type_error("the loop is not recursive; write {% for ... recursive %}");
  }
  if (callee.is_undefined()) return type_error(callee.why_undefined());
  return type_error("'" + std::string(callee.type_name()) + "' object is not callable");
}

// `input` is the text of a filtered block; without it the filter's own operand is evaluated.
Result<Value> Interpreter::evaluate_filter(const Expr& expr, const Value* input) {
  Value value;
  if (expr.args[0] && expr.args[0]->kind == ExprKind::kFilter) {
    value = TRY(evaluate_filter(*expr.args[0], input));
  } else if (expr.args[0]) {
    value = TRY(evaluate(*expr.args[0]));
  } else {
    value = *input;
  }
  const Args args = TRY(evaluate_arguments(expr));
  line_ = expr.line;
  return apply_filter(expr.name, value, args, budget_);
}

Result<Value> Interpreter::evaluate_arithmetic(const Expr& expr) {
  Value value = TRY(evaluate(*expr.args[0]));
  for (size_t i = 0; i < expr.ops.size(); ++i) {
    const Value right = TRY(evaluate(*expr.args[i + 1]));
    value = TRY(arithmetic(expr.ops[i], value, right, budget_));
  }
  return value;
}

Result<Value> Interpreter::evaluate_concat(const Expr& expr) {
  std::string out;
  for (const ExprPtr& part : expr.args) append_str(out, TRY(evaluate(*part)), budget_);
  return Value::string(std::move(out));
}

// The operand that decides, as in Python.
Result<Value> Interpreter::evaluate_logic(const Expr& expr) {
  Value value;
  for (const ExprPtr& part : expr.args) {
    value = TRY(evaluate(*part));
    if (value.truthy() == (expr.kind == ExprKind::kOr)) break;
  }
  return value;
}

Result<Value> Interpreter::evaluate_compare(const Expr& expr) {
  Value left = TRY(evaluate(*expr.args[0]));
  for (size_t i = 0; i < expr.ops.size(); ++i) {
    Value right = TRY(evaluate(*expr.args[i + 1]));
    if (!TRY(compare(expr.ops[i], left, right, budget_))) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Result<Value> Interpreter::evaluate_conditional(const Expr& expr) {
  if (TRY(evaluate(*expr.args[1])).truthy()) return evaluate(*expr.args[0]);
  if (expr.args[2]) return evaluate(*expr.args[2]);
  return Value::undefined("the inline if-expression evaluated to false and no else section was defined.");
}

// ---- globals ----

namespace {

// dict(mapping_or_pairs, name=value...)
Result<std::shared_ptr<Dict>> make_dict(const Args& args, Budget& budget) {
  auto dict = std::make_shared<Dict>();
  if (args.positional.size() > 1) return type_error("dict takes one mapping");
  for (const Value& source : args.positional) {
    if (source.is(Kind::kDict)) {
      for (const auto& [key, value] : source.as_dict().entries()) dict->set(key, value, budget);
      continue;
    }
    for (const Value& entry : TRY(iterate(source, budget))) {
      const List pair = TRY(iterate(entry, budget));
      if (pair.size() != 2 || !dict->set(pair[0], pair[1], budget)) return type_error("dict needs pairs");
    }
  }
  for (const auto& [name, value] : args.named) dict->set(Value::string(name), value, budget);
  return dict;
}

Result<Value> make_range(const Args& args, Budget& budget) {
  constexpr int64_t kRangeMax = 100'000;  // jinja2's sandbox has the same bound
  if (args.positional.empty() || args.positional.size() > 3) return type_error("range takes 1 to 3 integers");
  for (const Value& arg : args.positional) {
    if (!arg.is_integral()) return type_error("range takes integers");
  }
  const bool from_zero = args.positional.size() == 1;
  const int64_t first = from_zero ? 0 : args.positional[0].as_int();
  const int64_t last = args.positional[from_zero ? 0 : 1].as_int();
  const int64_t step = args.positional.size() == 3 ? args.positional[2].as_int() : 1;
  if (step == 0) return type_error("range: the step must not be zero");
  List items;
  for (int64_t i = first; step > 0 ? i < last : i > last;) {
    if (items.size() >= kRangeMax) return type_error("range: over 100000 numbers");
    items.push_back(Value::integer(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return Value::list(std::move(items), budget);
}

}  // namespace

void Interpreter::define_globals() {
  define("range", Value::callable("range", [this](const Args& args) { return make_range(args, budget_); }));
  define("dict", Value::callable("dict", [this](const Args& args) -> Result<Value> {
           return Value::dict(TRY(make_dict(args, budget_)));
         }));
  define("namespace", Value::callable("namespace", [this](const Args& args) -> Result<Value> {
           auto result = std::make_shared<Namespace>();
           const std::shared_ptr<Dict> dict = TRY(make_dict(args, budget_));
           for (const auto& [key, value] : dict->entries()) {
             result->attributes.emplace_back(to_str(key, budget_), value);
           }
           namespaces_.push_back(result);
           return Value::name_space(std::move(result));
         }));
}

}  // namespace runahead::jinja
