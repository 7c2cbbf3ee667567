// Checks of one TypeScript file, on its syntax tree: imports, and the house rules that a machine can see.
import ts from 'typescript';
import { emptyNames } from './rules.mjs';

const comparisons = new Set([
  ts.SyntaxKind.EqualsEqualsEqualsToken, ts.SyntaxKind.ExclamationEqualsEqualsToken, ts.SyntaxKind.EqualsEqualsToken, ts.SyntaxKind.ExclamationEqualsToken,
  ts.SyntaxKind.LessThanToken, ts.SyntaxKind.LessThanEqualsToken, ts.SyntaxKind.GreaterThanToken, ts.SyntaxKind.GreaterThanEqualsToken,
]);

/** The syntax tree of `text`, with parents. */
export function parse(path, text) {
  return ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true);
}

/** Every module a file names, as `{ specifier, kind, line }` with kind static, type or dynamic: import, export-from, import() and import types. */
export function importsOf(source) {
  const found = [];
  const add = (node, kind) => ts.isStringLiteralLike(node) && found.push({ specifier: node.text, kind, line: lineOf(source, node) });
  const visit = (node) => {
    if (ts.isImportDeclaration(node)) add(node.moduleSpecifier, node.importClause?.isTypeOnly === true ? 'type' : 'static');
    else if (ts.isExportDeclaration(node) && node.moduleSpecifier !== undefined) add(node.moduleSpecifier, node.isTypeOnly ? 'type' : 'static');
    else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) add(node.argument.literal, 'dynamic');
    else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword && node.arguments[0] !== undefined) add(node.arguments[0], 'dynamic');
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

/** 1-based line of a node. */
export function lineOf(source, node) {
  return source.getLineAndCharacterOfPosition(node.getStart(source)).line + 1;
}

/**
 * The house rules on a source file: `{ rule, line, message }`. `where` says which apply: `{ environment, ranks }`, true = forbidden here.
 * A line `// arrows-allow <rule>: <reason>` above a place excuses it.
 */
export function findingsOf(source, where) {
  const findings = [];
  const add = (rule, node, message) => findings.push({ rule, line: lineOf(source, node), message });
  const visit = (node) => {
    if (node.kind === ts.SyntaxKind.AnyKeyword) add('any', node, 'the type `any`');
    if (ts.isExportAssignment(node) || isDefault(node)) add('default-export', node, 'a default export');
    if (where.environment && isEnvironment(node)) add('environment', node, 'reads the environment: apps read it and pass values in');
    if (where.ranks) {
      const subject = comparedRank(node);
      if (subject !== null) add('rank-test', node, `tests \`${subject}\`: one code path for any number of ranks; only @lomo/parallel may look`);
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  for (const statement of source.statements) {
    if (ts.isVariableStatement(statement) && (statement.declarationList.flags & ts.NodeFlags.BlockScoped) !== ts.NodeFlags.Const) add('module-state', statement, 'mutable state at module level');
    if ((ts.isClassDeclaration(statement) || ts.isInterfaceDeclaration(statement) || ts.isTypeAliasDeclaration(statement)) && /(Manager|Factory|Helpers?|Utils?)$/.test(statement.name?.text ?? '')) {
      add('empty-name', statement, `the name ${statement.name?.text}`);
    }
  }
  if (!/^(#!.*\n)?(\/\/|\/\*)/.test(source.text)) findings.push({ rule: 'opening', line: 1, message: 'the file does not open with a comment saying what it is for' });
  return excused(source, findings);
}

/** The places excused by an `arrows-allow` line with a reason: `{ rule, line, reason }`. */
export function allowancesOf(source) {
  return source.text.split('\n').flatMap((text, index) => {
    const match = /\/\/ arrows-allow ([\w-]+): (\S.*)/.exec(text);
    return match === null ? [] : [{ rule: match[1], line: index + 1, reason: match[2] }];
  });
}

function excused(source, findings) {
  const allowed = allowancesOf(source);
  return findings.filter((one) => !allowed.some((at) => at.rule === one.rule && (at.line === one.line || at.line === one.line - 1)));
}

function isDefault(node) {
  if (ts.canHaveModifiers(node) && ts.getModifiers(node)?.some((one) => one.kind === ts.SyntaxKind.DefaultKeyword)) return true;
  return ts.isExportSpecifier(node) && node.name.text === 'default';
}

function isEnvironment(node) {
  if (ts.isPropertyAccessExpression(node) && node.name.text === 'env') return node.expression.getText() === 'process' || node.expression.kind === ts.SyntaxKind.MetaProperty;
  if (ts.isElementAccessExpression(node)) return node.expression.getText() === 'process';
  return ts.isImportSpecifier(node) && (node.propertyName ?? node.name).text === 'env' && /^(node:)?process$/.test(node.parent.parent.parent.moduleSpecifier.text);
}

// What makes code branch on how many ranks there are: a comparison of, or a bare condition on, a world size, a rank, or `distributed`.
function comparedRank(node) {
  if (ts.isBinaryExpression(node) && comparisons.has(node.operatorToken.kind)) return rankName(node.left) ?? rankName(node.right);
  if (ts.isIfStatement(node) || ts.isWhileStatement(node)) return flagName(node.expression);
  return ts.isConditionalExpression(node) ? flagName(node.condition) : null;
}

function flagName(node) {
  const bare = ts.isPrefixUnaryExpression(node) ? node.operand : node;
  return rankName(bare) ?? (/(^|\.)(isD|d)istributed(\(\))?$/.test(bare.getText()) ? bare.getText() : null);
}

function rankName(node) {
  if (!ts.isIdentifier(node) && !ts.isPropertyAccessExpression(node)) return null;
  const text = node.getText();
  return /(^|\.)(worldSize|numRanks|rankCount|localRank|rank|ranks\.length)$/.test(text) || /(^|\.)(comm|communicator|world)\.size$/i.test(text) ? text : null;
}

/** Whether a file's or folder's name is one of those that say nothing. */
export function isEmptyName(name) {
  return name.replace(/\.[^.]*$/, '').replaceAll(/([a-z])([A-Z])/g, '$1-$2').toLowerCase().split(/[-_.]/).some((word) => emptyNames.includes(word));
}
