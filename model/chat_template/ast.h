// The tree of a parsed chat template. Immutable after parsing, so threads may render from one tree at the same time.
// Operator chains (a + b + c), filters apart, are flat: a long line does not make a deep tree.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/chat_template/value.h"

namespace runahead::jinja {

enum class Op {
  kAdd,
  kSub,
  kMul,
  kDiv,
  kFloorDiv,
  kMod,
  kPow,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn
};

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

enum class ExprKind {
  kConstant,     // constant
  kName,         // name
  kList,         // args
  kTuple,        // args
  kDict,         // args: key, value, key, value...
  kAttribute,    // args[0] . name
  kItem,         // args[0] [ args[1] ]
  kSlice,        // args[0] [ args[1] : args[2] : args[3] ], each may be null
  kCall,         // args[0] (args[1...], named)
  kFilter,       // args[0] | name(args[1...], named); args[0] is null where a block is filtered
  kTest,         // args[0] is name(args[1...], named)
  kNot,          // not args[0]
  kNegate,       // - args[0]
  kPositive,     // + args[0]
  kArithmetic,   // args[0] ops[0] args[1] ops[1] args[2]..., left to right
  kConcat,       // args[0] ~ args[1] ~ ...
  kAnd,          // args[0] and args[1] and ...
  kOr,           // args[0] or args[1] or ...
  kCompare,      // args[0] ops[0] args[1] ops[1] args[2]..., chained as in Python
  kConditional   // args[0] if args[1] else args[2], which may be null
};

struct Expr {
  ExprKind kind;
  int line = 1;
  Value constant;
  std::string name;
  std::vector<ExprPtr> args;
  std::vector<Op> ops;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr spread_list;  // *args
  ExprPtr spread_dict;  // **kwargs
};

// Where an assignment goes: a name, name.attribute of a namespace, or several targets that unpack a sequence.
struct Target {
  std::string name;
  std::string attribute;
  std::vector<Target> items;
};

struct Parameter {
  std::string name;
  ExprPtr default_value;  // null: none
};

struct Stmt;
using Block = std::vector<Stmt>;

enum class StmtKind {
  kText,         // text
  kOutput,       // exprs[0]
  kSet,          // target = exprs[0]
  kSetBlock,     // target = bodies[0], through the filters exprs[0] if not null
  kIf,           // if exprs[i] then bodies[i]...; one body more than exprs: else
  kFor,          // for target in exprs[0] if exprs[1] (may be null): bodies[0], else bodies[1]
  kMacro,        // name(parameters): bodies[0]
  kCallBlock,    // call(parameters) exprs[0]: bodies[0] is `caller`
  kFilterBlock,  // bodies[0] through exprs[0]
  kWith,         // with targets[i] = exprs[i]: bodies[0]; also {% generation %}, which only opens a scope
  kBreak,
  kContinue
};

struct Stmt {
  StmtKind kind;
  int line = 1;
  std::string text;
  std::string name;
  Target target;
  std::vector<Target> targets;
  std::vector<ExprPtr> exprs;
  std::vector<Block> bodies;
  std::vector<Parameter> parameters;
  bool recursive = false;      // kFor
  bool takes_varargs = false;  // kMacro: the body names `varargs`
  bool takes_kwargs = false;   // kMacro: the body names `kwargs`
  bool takes_caller = false;   // kMacro: the body names `caller`
};

}  // namespace runahead::jinja
