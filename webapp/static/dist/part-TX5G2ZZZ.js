import{a}from"./part-SCCJ6HHP.js";import"./part-YW3XRSJZ.js";import"./part-GCGWWWOK.js";export{a as Wave};
