import{a}from"./part-5V6ZNHES.js";import"./part-YW3XRSJZ.js";import"./part-GCGWWWOK.js";export{a as Wave};
