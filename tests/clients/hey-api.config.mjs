// Imports with a file's name work with every bundler and in Node.js; without one, in bundlers only.
export default { output: { path: "gateway-typescript", module: { extension: ".js" } } };
