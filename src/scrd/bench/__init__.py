"""Methods × data sets × seeds × settings → a results file → tables and figures."""
