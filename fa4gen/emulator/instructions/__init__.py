"""What each family of PTX instructions does; importing a module enters its rows into the opcode table."""
